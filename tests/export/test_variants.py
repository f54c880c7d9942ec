"""Precision variants: each fitted, calibrated, proved and gated by itself."""

import dataclasses
import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest

from fre_export import ExportOptions, cli, export, fold, variants
from fre_export.parity import TOLERANCES, Tolerance
from fre_export.variants import MIN_RANK_CORRELATION, VariantError, check_gate, variant_files
from fre_runtime import Detector
from fre_runtime.card import OUTPUTS, Accuracy
from fre_runtime.engines import open_engine
from fre_runtime.errors import (
    ArtifactError,
    EngineError,
    MissingDependencyError,
    UsageError,
)
from fre_runtime.harness.gate import MAX_AUROC_LOSS, MAX_REJECT_CHANGE
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


PASSES = Accuracy(
    rank_correlation=0.96,
    images=200,
    image_auroc=0.985,
    image_auroc_fp32=0.986,
    false_reject_rate=0.045,
    false_reject_rate_fp32=0.04,
    detection_rate=0.7,
    detection_rate_fp32=0.7,
)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rank_correlation": MIN_RANK_CORRELATION},
        {"image_auroc": 1.0},
        {"false_reject_rate": 0.035},
        {"image_auroc": None, "image_auroc_fp32": None},
        {"false_reject_rate": None, "false_reject_rate_fp32": None},
    ],
)
def test_the_gate_lets_through_what_is_as_good_as_fp32(change):
    check_gate("int8", dataclasses.replace(PASSES, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank_correlation": 0.949}, "int8: orders the held-out .* of 0.949 with fp32, 0.95 is"),
        ({"rank_correlation": 0.0}, "correlation of 0.000"),
        (
            {"image_auroc": 0.986 - 2 * MAX_AUROC_LOSS},
            "int8: image AUROC 0.9820 against 0.9860 of fp32; it may lose 0.002",
        ),
        (
            {"false_reject_rate": 0.04 + 2 * MAX_REJECT_CHANGE},
            "int8: rejects 6.00% of the good test photos, fp32 4.00%; they may differ by 1%",
        ),
        ({"false_reject_rate": 0.04 - 2 * MAX_REJECT_CHANGE}, "rejects 2.00%"),
    ],
)
def test_the_gate_stops_what_is_worse_than_fp32(change, message):
    with pytest.raises(VariantError, match=message):
        check_gate("int8", dataclasses.replace(PASSES, **change))


@pytest.mark.parametrize("loss", ["image_auroc", "false_reject_rate"])
def test_the_gate_lets_through_what_lies_on_its_limit(loss):
    limit = {
        "image_auroc": {"image_auroc": 0.998, "image_auroc_fp32": 1.0},
        "false_reject_rate": {"false_reject_rate": 0.05, "false_reject_rate_fp32": 0.04},
    }[loss]
    check_gate("int8", dataclasses.replace(PASSES, **limit))


@pytest.fixture
def ratios(monkeypatch):
    """Set the time ratios that are measured, by variant; nothing is timed."""
    measured = {}

    def lookup(_, __, built):
        return {engine: measured[built.variant.precision][engine] for engine in built.engines}

    monkeypatch.setattr(variants, "_time_ratios", lookup)
    return measured


def refuse(name, _):
    raise VariantError(f"{name}: refused by the test")


@pytest.mark.parametrize("reason", ["gate", "parity", "engine"])
def test_a_variant_that_fails_is_left_out_and_fp32_is_written(
    reason, tiny_fit, tmp_path, monkeypatch, caplog, ratios
):
    ratios["int8"] = {"openvino": 0.5, "onnxruntime": 0.5}
    if reason == "gate":
        monkeypatch.setattr(variants, "check_gate", refuse)
    elif reason == "parity":
        monkeypatch.setitem(TOLERANCES, "int8", Tolerance(1e-12, 1e-12))
    else:  # what is not quantised does not run in int8
        monkeypatch.setattr(variants, "quantise", lambda trunk, _: trunk)
    message = {
        "gate": "left out: int8: refused by the test",
        "parity": "disagrees with PyTorch",
        "engine": "openvino runs f32 here, verified was int8",
    }[reason]
    with caplog.at_level(logging.WARNING):
        model = export(tiny_fit, tmp_path / "model", options=ExportOptions(precision="int8"))
    assert message in caplog.text
    assert model.card.variants.keys() == {"fp32"}
    names = {p.relative_to(model.path).as_posix() for p in model.path.rglob("*")}
    assert not [name for name in names if "int8" in name]
    assert {"model.onnx", "openvino/model.xml", "golden/fp32.npz"} <= names
    assert Detector(model).info.precision == "f32"


def test_auto_keeps_what_is_faster_here(tiny_fit, tmp_path, caplog, ratios):
    ratios["bf16"] = {"openvino": 1.2}
    ratios["int8"] = {"openvino": 1.1, "onnxruntime": 0.5}
    with caplog.at_level(logging.WARNING):
        model = export(tiny_fit, tmp_path / "model", options=ExportOptions(precision="auto"))
    assert model.card.variants.keys() == {"fp32", "int8"}
    assert model.variant("int8").files == {"onnxruntime": "model-int8.onnx"}
    assert "variant int8 is not faster than fp32 here on openvino: left out" in caplog.text
    assert {path.name for path in model.path.iterdir() if path.is_dir()} == {"openvino", "golden"}
    assert {path.name for path in (model.path / "golden").glob("*.npz")} == {
        "fp32.npz",
        "int8.npz",
    }
    with pytest.raises(ArtifactError, match="variant 'int8' has no file for engine 'openvino'"):
        Detector(model, "openvino", "int8")
    assert Detector(model, "onnxruntime", "int8").info.precision == "int8"


@pytest.fixture
def built(tiny_fit, uint8_model, tmp_path):
    """``built(**ratios)`` gives a folder with the files of an int8 variant, and what was built."""

    def build(**ratios):
        files = variant_files("int8")
        for file in (*files.values(), "openvino-int8/model.bin"):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).touch()
        variant = dataclasses.replace(
            uint8_model.variant("fp32"), precision="int8", files=files, time_ratio=ratios
        )
        return tmp_path, {"int8": variants.Built(variant, tiny_fit, {}, None)}

    return build


def files_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("openvino_ratio", "onnxruntime_ratio", "left"),
    [
        (0.5, 0.9, {"openvino-int8/model.xml", "openvino-int8/model.bin", "model-int8.onnx"}),
        (0.5, 1.0, {"openvino-int8/model.xml", "openvino-int8/model.bin"}),
        (1.3, 0.9, {"model-int8.onnx"}),
        (1.3, 1.1, set()),
    ],
)
def test_auto_drops_each_engine_that_is_not_faster(built, openvino_ratio, onnxruntime_ratio, left):
    root, have = built(openvino=openvino_ratio, onnxruntime=onnxruntime_ratio)
    fold._keep_what_pays(root, "int8", have, asked=False)
    assert files_in(root) == left
    assert ("int8" in have) is bool(left)
    if left:
        assert set(have["int8"].variant.files.values()) <= left


def test_what_was_asked_for_is_kept_and_its_slowness_said(built, caplog):
    root, have = built(openvino=1.3, onnxruntime=1.0)
    before, variant = files_in(root), have["int8"].variant
    fold._keep_what_pays(root, "int8", have, asked=True)
    assert files_in(root) == before
    assert have["int8"].variant == variant
    assert (
        "variant int8 is not faster than fp32 here on openvino and onnxruntime: kept, since it "
        "was asked for" in caplog.text
    )


@pytest.mark.parametrize(
    ("ratios", "best"),
    [
        ({}, "fp32"),
        ({"int8": {"openvino": 1.3, "onnxruntime": 1.1}}, "fp32"),
        ({"int8": {"openvino": 1.3, "onnxruntime": 0.7}}, "int8"),
        ({"bf16": {"openvino": 0.6}, "int8": {"openvino": 0.7, "onnxruntime": 0.8}}, "bf16"),
    ],
)
def test_the_fastest_variant_is_recommended(uint8_model, ratios, best):
    fp32 = uint8_model.variant("fp32")
    made = {n: dataclasses.replace(fp32, precision=n, time_ratio=r) for n, r in ratios.items()}
    card = dataclasses.replace(uint8_model.card, variants={"fp32": fp32, **made})
    assert cli.recommended(card) == best


def test_the_summary_tells_of_each_variant(variants_model):
    best = cli.recommended(variants_model.card)
    text = "\n".join(cli._summary(variants_model, 1.0))
    for name, variant in variants_model.card.variants.items():
        assert f"  {name} " in text
        assert all(file in text for file in variant.files.values())
    assert ("AUROC" in text) == (len(variants_model.card.variants) > 1)
    assert (f"--variant {best}" in text) == (best != "fp32")


@pytest.mark.parametrize("precision", ["fp8", "int8,fp8", "f32", "auto,int8", ""])
def test_a_precision_that_does_not_exist(tiny_fit, tmp_path, precision):
    unknown = {"int8,fp8": "fp8", "auto,int8": "auto"}.get(precision, precision)
    with pytest.raises(UsageError, match=f"precision '{unknown}' does not exist; choose auto, or"):
        export(tiny_fit, tmp_path / "model", options=ExportOptions(precision=precision))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("precision", "names"),
    [
        ("fp32", []),
        ("bf16", ["bf16"]),
        ("fp32,int8", ["int8"]),
        ("int8,bf16", ["int8", "bf16"]),
        ("auto", ["bf16", "int8"]),
    ],
)
def test_fp32_is_always_there_and_is_no_choice(precision, names):
    options = ExportOptions(precision=precision)
    options.check()
    assert options.variants == names


def test_int8_without_nncf_gives_the_pip_line(tiny_fit, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(
        MissingDependencyError, match=r"nncf is not installed.*pip install 'fre-edge\[quantize\]'"
    ):
        export(tiny_fit, tmp_path / "model", options=ExportOptions(precision="int8"))
    assert list(tmp_path.iterdir()) == []


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
