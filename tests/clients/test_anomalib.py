"""anomalib's OpenVINOInferencer runs the float flavour as its page says."""

import numpy as np
import pytest

from fre_runtime import Detector

RECORD = """[
    prediction.pred_label, prediction.pred_score, prediction.anomaly_map, prediction.pred_mask
]"""


@pytest.fixture(scope="module")
def anomalib(page):
    return page("anomalib.md")


@pytest.fixture(scope="module")
def python(venv, anomalib):
    return venv("anomalib", *anomalib.requirements)


@pytest.fixture(scope="module")
def answers(python, anomalib, follow, photos, golden_float_model, golden_model):
    """What it says of each photo, and of what is given wrongly."""
    score = "float(inferencer.predict({}).pred_score[0])"
    probes = {
        "right": score.format("image"),
        "bgr": score.format("image[..., ::-1].copy()"),
        "0..255": score.format("image.astype('float32')"),
        "0..1": score.format("(image / 255).astype('float32')"),
        "ones": score.format("(image > 60).astype('uint8')"),
        "white": score.format("(image > 60).astype('uint8') * 255"),
        "bright normalised": score.format("(image / 255 * 9 - 1).astype('float32')"),
        "dark normalised": score.format("(image / 255 - 1).astype('float32')"),
        "dark label": "bool(inferencer.predict((image / 255 - 1).astype('float32')).pred_label)",
        "nan": score.format("(image * float('nan')).astype('float32')"),
        "size": score.format("image[:200]"),
        "grey": score.format("image[..., 0]"),
        "path": score.format(repr(str(photos["camera"][0]))),
        "path of the right size": score.format(repr(str(photos["exact"][-1]))),
        "onnx": "float(OpenVINOInferencer('model/model.onnx', 'CPU', "
        "{'INFERENCE_PRECISION_HINT': 'f32'}).predict(image).pred_score[0])",
        "default flavour": "OpenVINOInferencer("
        f"{str(golden_model.path / 'openvino/model.xml')!r}, 'CPU').predict(image)",
        "cache": "__import__('os').path.isdir('openvino_cache')",
    }
    paths = [*photos["camera"], *photos["large"], *photos["exact"]]
    blocks = anomalib.blocks("python")
    got, tried = follow(python, blocks, golden_float_model, paths, RECORD, probes)
    return dict(zip(paths, got, strict=True)), tried


def test_the_page_gives_our_scores(answers, photos, golden_float_model):
    detector = Detector(golden_float_model, "openvino")
    for path in (*photos["exact"], *photos["camera"]):
        label, score, anomaly_map, mask = answers[0][path]
        ours = detector(path)
        assert score == [pytest.approx(ours.score, abs=1e-5)]
        assert label == [ours.is_anomalous]
        assert np.shape(anomaly_map) == (1, 1, 256, 256)
        assert np.shape(mask) == (1, 256, 256, 1)
        np.testing.assert_allclose(anomaly_map[0][0], ours.native_map, atol=1e-4)
        assert np.mean(np.array(mask)[0, ..., 0] != (ours.native_map > 0.5)) < 1e-3
    assert {label for (label,), *_ in answers[0].values()} == {True, False}


def test_large_photos_that_are_shrunk_in_one_go_are_a_little_off(
    answers, photos, golden_float_model
):
    detector = Detector(golden_float_model, "openvino")
    for path in photos["large"]:
        assert answers[0][path][1] == [pytest.approx(detector(path).score, abs=0.02)]


def test_wrong_input_gives_what_the_page_says(answers):
    wrong = answers[1]
    right = pytest.approx(wrong["right"], abs=1e-5)
    assert wrong["0..255"] == wrong["0..1"] == wrong["onnx"] == right
    assert wrong["path of the right size"] == right
    assert wrong["bgr"] != pytest.approx(wrong["right"], abs=1e-3)
    assert wrong["ones"] == pytest.approx(wrong["white"], abs=1e-5)
    assert wrong["bright normalised"] > 0.5
    assert np.isnan([wrong["dark normalised"], wrong["nan"]]).all()
    assert wrong["dark label"]
    for case in ("size", "grey", "path", "default flavour"):
        assert wrong[case].startswith("RuntimeError"), wrong[case]
    assert wrong["cache"]
