"""Which variants are asked for, kept and recommended."""

import dataclasses
import logging
import sys

import pytest

from fre_export import ExportOptions, cli, export, fold, variants
from fre_export.variants import variant_files
from fre_runtime import Detector
from fre_runtime.errors import (
    ArtifactError,
    MissingDependencyError,
    UsageError,
)


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
