"""The gate: a variant that is worth less than fp32, or fails, is not written."""

import dataclasses
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from fre_export import ExportOptions, export, variants
from fre_export.parity import TOLERANCES, Tolerance
from fre_export.variants import MIN_RANK_CORRELATION, VariantError, check_gate, rank_correlation
from fre_runtime import Detector
from fre_runtime.card import Accuracy
from fre_runtime.harness.gate import MAX_AUROC_LOSS, MAX_REJECT_CHANGE

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


def test_held_out_scores_are_compared_photo_by_photo():
    """Where photos are sketched, either fit keeps a sample of its own."""

    def scored(photos, scores):
        return SimpleNamespace(photo_of_score=np.array(photos), held_out_scores=np.array(scores))

    fp32 = scored([7, 2, 5, -1, 9], [1.0, 4.0, 2.0, 9.0, 3.0])
    assert rank_correlation(fp32, scored([2, 9, 7, 5], [40.0, 30.0, 10.0, 20.0])) == 1
    assert rank_correlation(fp32, scored([9, 2, 5, -1], [1.0, 0.0, 2.0, 9.0])) == -1
    assert rank_correlation(fp32, scored([9, 3], [1.0, 2.0])) == 0
