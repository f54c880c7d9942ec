import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fre_runtime import Detector, ImageError, MissingDependencyError, UsageError
from fre_runtime.engines import Outputs, loading
from fre_runtime.image import encode_image
from fre_runtime.result import Result

ENGINES = ["openvino", "onnxruntime"]


@pytest.fixture(params=ENGINES)
def detector(request, uint8_model):
    return Detector(uint8_model.path, request.param)


@pytest.fixture
def photos(make_photo):
    return [make_photo(5000 + i, 70 + i, 90) for i in range(12)]


def test_takes_paths_bytes_and_arrays(detector, photos, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encode_image(photos[0], ".png"))
    results = [detector(s) for s in (path, str(path), path.read_bytes(), photos[0])]
    assert len({result.score for result in results}) == 1
    assert results[0].timings.keys() == {"decode", "resize", "infer", "postprocess"}


def test_finds_the_scratch_where_it_is(detector, category):
    good = [detector(p) for p in sorted((category / "test/good").iterdir())]
    bad = [detector(p) for p in sorted((category / "test/scratch").iterdir())]
    assert np.median([r.raw_score for r in bad]) > np.median([r.raw_score for r in good])
    centre = np.mean([r.anomaly_map[30:44, 30:60].mean() for r in bad])
    assert centre > np.mean([r.anomaly_map[:10].mean() for r in bad])


def test_results_come_at_the_size_of_the_image(detector, photos):
    result = detector(photos[3])
    assert result.anomaly_map.shape == result.mask.shape == photos[3].shape[:2]
    assert result.anomaly_map.dtype == np.float32
    assert result.mask.dtype == bool
    assert 0 <= result.anomaly_map.min() <= result.anomaly_map.max() <= 1


def test_many_threads_get_what_one_gets(detector, photos):
    expected = [detector(photo).score for photo in photos]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert [r.score for r in pool.map(detector, photos)] == expected


@pytest.mark.parametrize("throughput", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_stream_keeps_the_order(uint8_model, photos, engine, throughput):
    detector = Detector(uint8_model, engine, throughput=throughput)
    expected = [detector(photo).score for photo in photos]
    got = [result.score for result in detector.stream(iter(photos))]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_stream_reads_only_a_few_images_ahead(detector, photos):
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield photos[len(taken) % len(photos)]

    stream = detector.stream(endless())
    for _ in range(5):
        next(stream)
    stream.close()
    assert len(taken) < 20


def test_stream_raises_when_the_bad_image_has_its_turn(detector, photos):
    stream = detector.stream([photos[0], b"junk", photos[1]])
    assert next(stream).state in ("good", "anomalous")
    with pytest.raises(ImageError):
        next(stream)


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)],
)
def test_arrays_of_another_kind_are_refused(detector, image):
    with pytest.raises(ImageError):
        detector(image)


def test_odd_memory_layouts_give_the_same_score(detector, photos):
    photo = photos[0]
    mirrored_view = np.ascontiguousarray(photo[:, ::-1])[:, ::-1]
    fortran = np.asfortranarray(photo)
    assert detector(mirrored_view).score == detector(fortran).score == detector(photo).score
    assert detector(photo[:1, :1]).image_size == (1, 1)


def test_read_only_arrays_of_the_model_size_are_fine(detector, make_photo):
    photo = make_photo(1, 64, 64)
    expected = detector(photo).score
    photo.flags.writeable = False
    assert detector(photo).score == expected


def test_a_score_that_is_no_number_is_invalid_and_never_good(detector, photos, monkeypatch):
    nan = np.full(1, np.nan, np.float32)
    grid = np.full((1, 1, 4, 4), np.nan, np.float32)
    outputs = Outputs(nan, np.ones(1, bool), grid, np.ones((1, 1, 4, 4), bool))
    monkeypatch.setattr(detector._engine, "run", lambda _: outputs)
    result = detector(photos[0])
    assert result.state == "invalid"
    assert result.is_anomalous
    assert np.isnan(result.score)
    assert result.boxes == []


def test_the_precision_that_runs_is_the_one_verified(detector):
    assert detector.info.precision == "f32"
    assert detector.info.threads >= 1


def test_unknown_and_missing_engines(uint8_model, monkeypatch):
    with pytest.raises(UsageError, match="engine 'tensorrt' does not exist"):
        Detector(uint8_model, "tensorrt")
    with pytest.raises(UsageError, match="threads must lie in 1.."):
        Detector(uint8_model, threads=0)
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fre-edge\[onnxruntime\]'"):
        Detector(uint8_model, "onnxruntime")
    with pytest.raises(MissingDependencyError, match=r"pip install 'fre-edge\[openvino\]'"):
        Detector(uint8_model)


def result_of(native_map, size):
    return Result(0.9, 2.0, "anomalous", size, np.asarray(native_map, np.float32))


def test_the_map_is_lifted_as_pytorch_lifts_it():
    native = np.random.default_rng(0).random((8, 8), np.float32)
    lifted = result_of(native, (96, 64)).anomaly_map
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(native)[None, None], (96, 64), mode="bilinear"
    )[0, 0]
    np.testing.assert_allclose(lifted, expected, atol=1e-5)


def test_boxes_surround_the_regions_worst_first():
    native = np.zeros((8, 8))
    native[1, 1], native[6, 5:7] = 0.7, 0.95
    worst, other = result_of(native, (80, 160)).boxes
    assert worst.score > other.score > 0.5
    assert worst.x <= 110 <= worst.x + worst.width
    assert worst.y <= 65 <= worst.y + worst.height
    assert other.x <= 30 <= other.x + other.width
    assert result_of(np.zeros((8, 8)), (80, 160)).boxes == []


def test_needs_no_torch(uint8_model, photos, tmp_path):
    import subprocess

    path = tmp_path / "photo.png"
    path.write_bytes(encode_image(photos[0], ".png"))
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, fre_edge=None, fre_export=None)\n"
        "from fre_runtime import Detector\n"
        f"print(Detector({str(uint8_model.path)!r})({str(path)!r}).score)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < 1
