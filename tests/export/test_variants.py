"""Precision variants: each fitted, calibrated and proved by itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

from fre_export import ExportOptions, export, variants
from fre_export.parity import TOLERANCES
from fre_export.variants import MIN_RANK_CORRELATION
from fre_runtime import Detector
from fre_runtime.card import OUTPUTS
from fre_runtime.engines import open_engine
from fre_runtime.errors import (
    ArtifactError,
    EngineError,
)
from fre_runtime.harness.gate import MAX_AUROC_LOSS
from fre_runtime.latency import Budget
from fre_runtime.model_dir import golden_outputs, open_model_dir, write_manifest

FILES = {
    ("bf16", "openvino"): "openvino-bf16/model.xml",
    ("int8", "openvino"): "openvino-int8/model.xml",
    ("int8", "onnxruntime"): "model-int8.onnx",
}
NAMES = ["bf16", "int8"]


def test_a_variant_has_files_of_its_own(variants_model, executed):
    manifest = json.loads((variants_model.path / "MANIFEST.json").read_text())["files"]
    assert variants_model.variant("fp32").files == {
        "openvino": "openvino/model.xml",
        "onnxruntime": "model.onnx",
    }
    for name in variants_model.card.variants.keys() - {"fp32"}:
        files = executed(name).files
        assert files == {e: file for (n, e), file in FILES.items() if n == name}
        for file in (*files.values(), golden_outputs(name)):
            assert file in manifest
            assert (variants_model.path / file).is_file()
    onnx_files = {path.name for path in variants_model.path.glob("*.onnx")}
    assert onnx_files == {"model.onnx", "model-int8.onnx"}  # OpenVINO alone has bf16


@pytest.mark.parametrize("name", NAMES)
def test_a_variant_has_thresholds_proof_and_accuracy_of_its_own(name, variants_model, executed):
    variant, fp32 = executed(name), variants_model.variant("fp32")
    assert variant.precision == name
    for scale in ("image", "pixel"):
        ours, theirs = (getattr(v.calibration, scale).value for v in (variant, fp32))
        assert ours != theirs
        assert ours == pytest.approx(theirs, rel=0.2)
    assert variant.parity.images == fp32.parity.images == 16
    assert variant.parity.score_error.keys() == variant.files.keys()
    assert (variant.parity.score_tolerance, variant.parity.map_tolerance) == TOLERANCES[name]
    assert max(variant.parity.score_error.values()) > max(fp32.parity.score_error.values())
    assert variant.accuracy is not None
    assert variant.accuracy.images == 16
    assert MIN_RANK_CORRELATION <= variant.accuracy.rank_correlation <= 1
    assert variant.accuracy.image_auroc >= variant.accuracy.image_auroc_fp32 - MAX_AUROC_LOSS
    assert variant.time_ratio.keys() == variant.files.keys()
    assert min(variant.time_ratio.values()) > 0
    assert fp32.accuracy is None
    assert fp32.time_ratio == {}


@pytest.mark.parametrize("name", NAMES)
def test_the_golden_outputs_are_those_of_the_variant(name, variants_model, executed):
    executed(name)
    ours, fp32 = (
        dict(np.load(variants_model.path / golden_outputs(v)).items()) for v in (name, "fp32")
    )
    assert tuple(ours) == tuple(fp32) == OUTPUTS
    assert not np.array_equal(ours["pred_score"], fp32["pred_score"])
    np.testing.assert_allclose(ours["pred_score"], fp32["pred_score"], rtol=0.1)


@pytest.mark.parametrize(("name", "engine"), FILES)
def test_a_variant_opens_and_runs_in_its_own_precision(name, engine, variants_model, executed):
    executed(name)
    loaded = open_engine(variants_model, engine, name)
    assert loaded.info.engine == engine
    assert loaded.info.precision == name
    assert loaded.metadata["fre_precision"] == name
    threshold = variants_model.variant(name).calibration.image.value
    assert float(loaded.metadata["fre_image_threshold"]) == threshold


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_fp32_beside_variants_says_f32(engine, variants_model):
    assert open_engine(variants_model, engine).metadata["fre_precision"] == "f32"


@pytest.mark.parametrize(("name", "engine"), FILES)
def test_names_and_shapes_are_those_of_fp32(name, engine, variants_model, executed):
    path = variants_model.path / executed(name).files[engine]
    reference = variants_model.path / variants_model.variant("fp32").files[engine]

    def seen(path):
        if path.suffix == ".onnx":
            onnx.checker.check_model(onnx.load(path), full_check=True)
        model = openvino.Core().read_model(path)
        return [
            (value.get_any_name(), value.get_element_type(), value.get_partial_shape())
            for value in (*model.inputs, *model.outputs)
        ]

    assert seen(path) == seen(reference)
    assert tuple(value[0] for value in seen(path)[1:]) == OUTPUTS


@pytest.mark.parametrize(("name", "engine"), FILES)
def test_a_variant_tells_scratches_from_good_parts(
    name, engine, variants_model, executed, category
):
    executed(name)
    detector = Detector(variants_model, engine, name)
    assert (detector.variant, detector.info.precision) == (name, name)
    fp32 = Detector(variants_model, engine)
    photos = [sorted((category / "test" / kind).iterdir()) for kind in ("good", "scratch")]
    good, bad = ([detector(photo).raw_score for photo in some] for some in photos)
    assert np.median(bad) > np.median(good)
    ours, theirs = ([d(photo).score for photo in photos[0]] for d in (detector, fp32))
    assert ours != theirs
    np.testing.assert_allclose(ours, theirs, atol=0.05)  # on the same scale: 0.5 decides


def test_onnxruntime_is_not_asked_for_bf16(variants_model, executed):
    executed("bf16")
    with pytest.raises(ArtifactError, match="variant 'bf16' has no file for engine 'onnxruntime'"):
        open_engine(variants_model, "onnxruntime", "bf16")


@pytest.mark.parametrize("name", ["fp32", *NAMES])
def test_openvino_scores_a_batch_as_it_scores_each(name, variants_model, executed):
    executed(name)
    loaded = open_engine(variants_model, "openvino", name)
    batch = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    together = loaded.run(batch)
    alone = [loaded.run(batch[i : i + 1]) for i in range(3)]
    for got, *each in zip(together, *alone, strict=True):
        np.testing.assert_array_equal(got, np.concatenate(each))


@pytest.mark.parametrize("factor", [1.01, 0.99])
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_one_percent_off_is_a_fault_of_fp32_and_rounding_of_int8(
    engine, factor, variants_model, executed, tmp_path
):
    executed("int8")
    root = Path(shutil.copytree(variants_model.path, tmp_path / "model"))
    for name in ("fp32", "int8"):
        falsify(root, name, factor, variants_model.variant(name).calibration.image)
    model = open_model_dir(root)
    with pytest.raises(EngineError, match="does not reproduce what was verified"):
        open_engine(model, engine)
    assert open_engine(model, engine, "int8").info.precision == "int8"
    falsify(root, "int8", 1.3, variants_model.variant("int8").calibration.image)
    with pytest.raises(EngineError, match="does not reproduce what was verified"):
        open_engine(open_model_dir(root), engine, "int8")


def falsify(root, name, factor, threshold):
    """Multiply the raw golden score by ``factor``."""
    path = root / golden_outputs(name)
    golden = dict(np.load(path).items())
    score = threshold.calibrated(threshold.raw(golden["pred_score"]) * factor)
    golden["pred_score"] = score.astype(np.float32)
    np.savez_compressed(path, **golden)
    write_manifest(root)


@pytest.fixture(scope="module")
def int8_float_model(tiny_fit, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "int8-float"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variants, "TIMING", Budget(seconds=0.05, frames=5, cap=0.1))
        return export(tiny_fit, out, options=ExportOptions(io="float", precision="int8"))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_8_bits_do_not_hide_a_pixel_that_is_no_number(engine, value, int8_float_model):
    loaded = open_engine(int8_float_model, engine, "int8")
    batch = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    batch[1, 0, 5, 5] = value
    outputs = loaded.run(batch)
    assert np.isfinite(outputs.pred_score[0])
    assert np.isnan(outputs.pred_score[1])
    assert outputs.pred_label[1]
