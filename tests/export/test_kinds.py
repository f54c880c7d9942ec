"""Other backbones and other subspaces through the whole export, which proves parity itself."""

import dataclasses

import numpy as np
import pytest
import torch

from fre_edge import FitOptions, fit
from fre_export import ExportOptions, export, variants
from fre_runtime.commands.info import describe
from fre_runtime.engines import open_engine
from fre_runtime.latency import Budget

BASE = FitOptions(weights="random", size=(64, 64), pool=1, groups="none", fpr=0.05)
KINDS = {
    "timm-vit": dataclasses.replace(
        BASE, backbone="timm/vit_tiny_patch16_224", layers=("blocks.0", "blocks.1")
    ),
    "torchvision-vit": dataclasses.replace(BASE, backbone="vit_b_16"),
    "local": dataclasses.replace(BASE, backbone="resnet18", layers=("layer1",), subspace="local"),
    # More products with W than convolutions: the precision is still the trunk's.
    "regions": dataclasses.replace(
        BASE, backbone="resnet18", layers=("layer1", "layer2"), subspace="regions:3"
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree_whatever_the_backbone_and_the_subspace(
    kind, category, tmp_path, tiny_torchvision_vit
):
    fitted = fit(category, KINDS[kind])
    model = export(fitted, tmp_path / "model")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = fitted.module()(torch.from_numpy(images))
    for engine in ("onnxruntime", "openvino"):
        got = open_engine(model, engine).run(images)
        np.testing.assert_allclose(got.pred_score, expected.pred_score, rtol=1e-3)
        np.testing.assert_allclose(got.anomaly_map, expected.anomaly_map, atol=1e-3)
    said = "\n".join(describe(model.card))
    assert f"subspace {fitted.options.subspace}" in said
    assert ("weights" in said.split("layers")[1].split("fitted")[0]) == (len(fitted.shapes) > 1)


def test_a_local_subspace_has_its_variants_too(category, tmp_path, monkeypatch):
    monkeypatch.setattr(variants, "TIMING", Budget(seconds=0.05, frames=5, cap=0.1))
    monkeypatch.setattr(variants, "MIN_RANK_CORRELATION", 0.8)  # the weights are random
    model = export(
        category, tmp_path / "model", KINDS["local"], ExportOptions(precision="bf16,int8")
    )
    assert model.card.training.subspace == "local"
    assert {"fp32", "int8"} <= model.card.variants.keys()
    for name, variant in model.card.variants.items():
        assert variant.parity.labels_equal
        assert open_engine(model, "openvino", name)
