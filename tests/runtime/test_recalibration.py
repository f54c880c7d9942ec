import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fre_runtime import Detector
from fre_runtime.commands import calibrate, info
from fre_runtime.commands.common import run_command
from fre_runtime.conformal import conformal_quantile
from fre_runtime.engines import open_engine
from fre_runtime.engines.loading import installed_engines
from fre_runtime.errors import DataError, EngineError, OutputError, UsageError
from fre_runtime.groups import thumbnail, thumbnail_groups
from fre_runtime.image import encode_image
from fre_runtime.model_dir import open_model_dir
from fre_runtime.recalibration import CalibrationOptions, recalibrate

ALONE = CalibrationOptions(fpr=0.1, groups="none", quiet=True)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory, make_folder):
    """Good photos that no model has seen."""
    return make_folder(tmp_path_factory.mktemp("line") / "line 3", 20, 7000)


def test_the_threshold_is_the_quantile_of_the_scores(uint8_model, fresh, tmp_path):
    done = recalibrate(uint8_model, fresh, tmp_path / "new", ALONE)
    raw = np.array([Detector(uint8_model)(path).raw_score for path in sorted(fresh.iterdir())])
    new = done.model.variant("fp32").calibration
    expected = conformal_quantile(raw, np.arange(20), 0.1).value
    assert new.image.value == pytest.approx(expected, rel=1e-4)
    assert (new.fpr, new.fpr_supported, new.folds) == (0.1, 0.1, 0)
    assert (new.source, new.photos, new.scenes) == ("photos of line 3", 20, 20)
    assert sum(new.held_out.counts) == 20
    old = uint8_model.variant("fp32").calibration
    assert done.rejected_before == {"fp32": (raw > old.image.value).mean()}
    assert (
        np.array([Detector(done.model)(p).score for p in sorted(fresh.iterdir())]) > 0.5
    ).sum() <= 2


@pytest.mark.parametrize("name", ["uint8_model", "float_model", "max_model", "variants_model"])
def test_every_engine_gives_the_same_raw_scores_as_before(name, request, fresh, tmp_path):
    model = request.getfixturevalue(name)
    new = recalibrate(model, fresh, tmp_path / "new", ALONE).model
    assert new.card.variants.keys() == model.card.variants.keys()
    photo = next(iter(fresh.iterdir()))
    for variant, one in new.card.variants.items():
        assert one.parity == model.card.variants[variant].parity
        for engine in one.files:
            before = Detector(model, engine, variant)(photo)
            after = Detector(new, engine, variant)(photo)
            assert after.raw_score == pytest.approx(before.raw_score, rel=1e-5)
            assert after.score != pytest.approx(before.score, rel=1e-3)
        if one.accuracy is not None:  # measured at other thresholds
            assert one.accuracy.false_reject_rate is None
            assert one.accuracy.image_auroc == model.card.variants[variant].accuracy.image_auroc


def test_a_new_model_can_be_calibrated_again(uint8_model, fresh, tmp_path):
    first = recalibrate(uint8_model, fresh, tmp_path / "first", ALONE).model
    again = recalibrate(first, fresh, tmp_path / "again", ALONE).model
    assert again.variant("fp32").calibration.image.value == pytest.approx(
        first.variant("fp32").calibration.image.value, rel=1e-5
    )


def test_a_file_that_was_not_changed_is_found_out(uint8_model, fresh, tmp_path, monkeypatch):
    monkeypatch.setattr("fre_runtime.recalibration.threshold_constants", lambda _: {})
    with pytest.raises(EngineError, match="golden image"):
        recalibrate(uint8_model, fresh, tmp_path / "new", ALONE)
    assert list(tmp_path.iterdir()) == []


def test_a_lifted_map_that_is_wrong_is_found_out(max_model, fresh, tmp_path, monkeypatch):
    def only_image(calibration):
        return {"head.image_tau": calibration.image.value}

    monkeypatch.setattr("fre_runtime.recalibration.threshold_constants", only_image)
    with pytest.raises(EngineError, match="off by .* at a corner"):
        recalibrate(max_model, fresh, tmp_path / "new", ALONE)


def test_a_variant_that_cannot_run_here_is_left_out(variants_model, fresh, tmp_path, monkeypatch):
    real = open_engine

    def refuse(model, engine, variant, *args, **kwargs):
        if variant == "int8":
            raise EngineError("int8 does not run here")
        return real(model, engine, variant, *args, **kwargs)

    monkeypatch.setattr("fre_runtime.recalibration.open_engine", refuse)
    done = recalibrate(variants_model, fresh, tmp_path / "new", ALONE)
    assert done.left_out == {"int8": "int8 does not run here"}
    assert "int8" not in done.model.card.variants
    assert not (tmp_path / "new/model-int8.onnx").exists()
    assert not (tmp_path / "new/golden/int8.npz").exists()


def test_too_few_photos_are_refused_with_the_rate_that_they_support(uint8_model, fresh, tmp_path):
    options = dataclasses.replace(ALONE, fpr=0.01)
    with pytest.raises(
        DataError, match=r"0.0476 at best, not 0.01; that takes photos of 99 .*0.048"
    ):
        recalibrate(uint8_model, fresh, tmp_path / "new", options)
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk/a.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"0 usable photos among 1 files .*a.png: is not a JPEG"):
        recalibrate(uint8_model, tmp_path / "junk", tmp_path / "new", ALONE)
    assert not (tmp_path / "new").exists()


def test_copies_and_unreadable_files_do_not_count(uint8_model, fresh, tmp_path):
    photos = shutil.copytree(fresh, tmp_path / "photos")
    shutil.copy(photos / "photo_000.png", photos / "same.png")
    (photos / "junk.png").write_bytes(b"junk")
    done = recalibrate(uint8_model, photos, tmp_path / "new", ALONE)
    assert {path.name for path in done.skipped} == {"same.png", "junk.png"}
    assert done.model.variant("fp32").calibration.photos == 20


def test_bursts_count_once(make_photo, fresh, uint8_model, tmp_path):
    rng = np.random.default_rng(0)
    burst = tmp_path / "burst"
    burst.mkdir()
    for part in range(12):
        photo = make_photo(8000 + part).astype(int)
        for shot in range(3):  # other exposure, some noise
            noisy = photo * (1 + 0.1 * shot) + rng.normal(0, 2, photo.shape)
            data = encode_image(np.clip(noisy, 0, 255).astype(np.uint8), ".png")
            (burst / f"{part:02d}_{shot}.png").write_bytes(data)
    options = dataclasses.replace(ALONE, groups="auto")
    new = recalibrate(uint8_model, burst, tmp_path / "new", options).model
    assert new.variant("fp32").calibration.scenes == 12
    assert new.variant("fp32").calibration.photos == 36
    table = tmp_path / "groups.csv"
    lines = [f"{path.name},{int(path.name[:2]) // 2}" for path in burst.iterdir()]
    table.write_text("\n".join(["file,group", *lines]))
    options = dataclasses.replace(ALONE, groups=str(table), fpr=0.2)
    new = recalibrate(uint8_model, burst, tmp_path / "by_table", options).model
    assert new.variant("fp32").calibration.scenes == 6


def test_photos_that_differ_are_not_taken_for_one(make_photo):
    thumbnails = [thumbnail(make_photo(seed), 32) for seed in range(30)]
    assert len(np.unique(thumbnail_groups(thumbnails))) == 30
    longer = [*thumbnails, np.concatenate([thumbnails[0]] * 2)]
    assert len(np.unique(thumbnail_groups(longer))) == 31


def test_misuse(uint8_model, fresh, tmp_path):
    with pytest.raises(UsageError, match="fpr must lie"):
        recalibrate(uint8_model, fresh, tmp_path / "new", CalibrationOptions(fpr=1.5))
    with pytest.raises(OutputError, match="already exists"):
        recalibrate(uint8_model, fresh, uint8_model.path, ALONE)


def call(command, *argv):
    return run_command(command, [str(arg) for arg in argv])


def test_the_command(uint8_model, fresh, tmp_path, capsys):
    out, table = tmp_path / "new", tmp_path / "card.json"
    argv = [uint8_model.path, fresh, "--out", out, "--fpr", "0.1", "--groups", "none"]
    assert call(calibrate, *argv, "--json", table) == 0
    printed = capsys.readouterr().out
    assert "20 photos of 20 scenes for a false-reject rate of 0.1" in printed
    assert "the old ones reject" in printed
    assert json.loads(table.read_text()) == json.loads((out / "model.json").read_text())
    assert call(info, out) == 0
    assert "20 photos of line 3 (20 scenes)" in capsys.readouterr().out
    assert call(calibrate, *argv) == 1
    assert "already exists" in capsys.readouterr().err
    assert call(calibrate, *argv, "--overwrite", "--quiet") == 0
    assert open_model_dir(out).card.name == "new"


def test_the_command_warns_of_photos_that_the_model_knows(uint8_model, category, tmp_path, capsys):
    argv = [uint8_model.path, category, "--out", tmp_path / "new", "--fpr", "0.1"]
    assert call(calibrate, *argv) == 0
    assert "Was the model fitted on these photos?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--roi", "0,0,500,10"], 1, "0,0,500,10 (x,y,width,height) lies outside of the image"),
        (["--roi", "0,0,0,10"], 2, "is empty"),
        (["--groups", "none.csv"], 1, "none.csv: cannot be read as CSV"),
        (["--fpr", "0.001"], 1, "support a false-reject rate of"),
        (["--max-pixels", "100"], 1, "over the limit of 100"),
    ],
)
def test_fails_with_one_clear_line(argv, code, message, uint8_model, fresh, tmp_path, capsys):
    assert (
        call(calibrate, uint8_model.path, fresh, "--out", tmp_path / "new", *argv, "--quiet")
        == code
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "new").exists()


def test_needs_neither_torch_nor_onnx(uint8_model, fresh, tmp_path):
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, fre_edge=None, fre_export=None)\n"
        "from fre_runtime.commands import calibrate\n"
        "sys.exit(calibrate.run(calibrate.parse_args(sys.argv[1:])))"
    )
    argv = [uint8_model.path, fresh, "--out", tmp_path / "new", "--fpr", "0.1", "--quiet"]
    subprocess.run([sys.executable, "-c", code, *map(str, argv)], check=True, capture_output=True)
    assert set(installed_engines()) == {"openvino", "onnxruntime"}
    assert open_model_dir(tmp_path / "new").variant("fp32").calibration.photos == 20
