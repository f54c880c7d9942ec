"""Shared fixtures: synthetic photos with a fixed seed, and tiny models made from them once."""

import dataclasses
import functools
import hashlib
import importlib.util
import io
import logging
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import torchvision
from torch.onnx._internal.exporter._registration import ONNXRegistry
from torchvision.models import VisionTransformer

from fre_edge import Fit, FitOptions, fit, zoo
from fre_export import ExportOptions, export, onnx_graph, variants
from fre_runtime.card import Variant
from fre_runtime.image import encode_image
from fre_runtime.latency import Budget
from fre_runtime.model_dir import ModelDir

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]

TINY = FitOptions(
    backbone="resnet18",
    layers=("layer1", "layer2"),
    weights="random",
    size=(64, 64),
    pool=2,
    groups="none",
    fpr=0.05,
)


def good_photo(seed: int, height: int = 80, width: int = 96) -> np.ndarray:
    """A synthetic good part: a smooth disc with a little grain, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centre = height / 2 + rng.normal(0, 1), width / 2 + rng.normal(0, 1)
    disc = np.hypot(y - centre[0], x - centre[1]) < height / 3 + rng.normal(0, 1)
    grain = cv2.GaussianBlur(rng.normal(0, 30, (height, width)), (0, 0), 2)
    grey = 80 + 90 * disc + rng.normal(0, 4) + grain
    return np.clip(grey[..., None] * [1.0, 0.9, 0.8], 0, 255).astype(np.uint8)


def bad_photo(seed: int) -> np.ndarray:
    """The same part with a bright scratch."""
    photo = good_photo(seed)
    cv2.line(photo, (30, 30), (60, 44), (250, 250, 250), 3)
    return photo


def write_photos(folder: Path, count: int, first_seed: int = 0) -> Path:
    """Write ``count`` distinct good photos into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        data = encode_image(good_photo(first_seed + i), ".png")
        (folder / f"photo_{i:03d}.png").write_bytes(data)
    return folder


def lay_out_category(root: Path, good: int = 24, test: int = 8) -> Path:
    """Write an MVTec-layout category with masks of the scratches."""
    write_photos(root / "train" / "good", good)
    write_photos(root / "test" / "good", test, first_seed=1000)
    for folder in (root / "test" / "scratch", root / "ground_truth" / "scratch"):
        folder.mkdir(parents=True)
    for i in range(test):
        photo, clean = bad_photo(2000 + i), good_photo(2000 + i)
        mask = np.abs(photo.astype(int) - clean).max(2, keepdims=True) > 0
        mask = (np.repeat(mask, 3, 2) * 255).astype(np.uint8)
        name = f"{i:03d}"
        (root / f"test/scratch/{name}.png").write_bytes(encode_image(photo, ".png"))
        (root / f"ground_truth/scratch/{name}_mask.png").write_bytes(encode_image(mask, ".png"))
    return root


class Content(pickle.Pickler):
    """Tensors by value: by themselves they would also tell where in memory they lie."""

    def reducer_override(self, thing: object) -> object:
        if not isinstance(thing, torch.Tensor):
            return NotImplemented
        data = thing.detach().numpy().tobytes()
        return tuple, ((str(thing.dtype), thing.shape, thing.stride(), data),)


@pytest.fixture(scope="session", autouse=True)
def traced_once() -> Iterator[None]:
    """What has been traced to ONNX is not traced again: the same module gives the same graph.

    Tracing takes most of the time of a small export. A module is the same when all of it is, code
    and weights included; and each export still proves its graph against the module itself.
    """
    seen: dict[bytes, bytes] = {}
    trace, registry = onnx_graph.trace, ONNXRegistry.from_torchlib

    def remembered(*arguments: object) -> onnx.ModelProto:
        content = io.BytesIO()
        try:
            Content(content).dump(arguments)
        except (pickle.PicklingError, AttributeError, TypeError):  # a test's own function in it
            return trace(*arguments)
        key = hashlib.sha256(content.getbuffer()).digest()
        if key not in seen:
            seen[key] = trace(*arguments).SerializeToString()
        return onnx.ModelProto.FromString(seen[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "trace", remembered)
        # PyTorch parses its 500 translations of operators anew each time.
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(registry)))
        yield


@pytest.fixture(scope="session")
def make_photo():
    """``make_photo(seed, height, width)`` gives a good photo."""
    return good_photo


@pytest.fixture(scope="session")
def make_folder():
    """``make_folder(folder, count)`` writes good photos."""
    return write_photos


@pytest.fixture(scope="session")
def category(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out_category(tmp_path_factory.mktemp("category"))


@pytest.fixture(scope="session")
def tiny_fit(category: Path) -> Fit:
    return fit(category, TINY)


@pytest.fixture(scope="session")
def uint8_model(tiny_fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> ModelDir:
    return export(tiny_fit, tmp_path_factory.mktemp("models") / "uint8")


@pytest.fixture(scope="session")
def float_model(tiny_fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> ModelDir:
    options = ExportOptions(io="float")
    return export(tiny_fit, tmp_path_factory.mktemp("models") / "float", options=options)


@pytest.fixture(scope="session")
def max_fit(category: Path) -> Fit:
    """One layer, ``max`` score."""
    return fit(category, dataclasses.replace(TINY, layers=("layer1",), score="max"))


@pytest.fixture(scope="session")
def max_model(max_fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> ModelDir:
    """uint8 with the map lifted in the graph."""
    out = tmp_path_factory.mktemp("models") / "max"
    return export(max_fit, out, options=ExportOptions(map_size="input"))


class Warnings(logging.Handler):
    """What the export warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture(scope="session")
def variants_export(
    category: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelDir, list[str]]:
    """The tiny model in every precision that this machine executes, and what was warned of."""
    handler, logger = Warnings(), logging.getLogger("fre_export")
    logger.addHandler(handler)
    options = ExportOptions(precision="bf16,int8")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(variants, "TIMING", Budget(seconds=0.05, frames=5, cap=0.1))
            model = export(category, tmp_path_factory.mktemp("models") / "all", TINY, options)
    finally:
        logger.removeHandler(handler)
    return model, handler.said


@pytest.fixture(scope="session")
def variants_model(variants_export: tuple[ModelDir, list[str]]) -> ModelDir:
    """fp32, int8 and, where this processor has it, bf16."""
    return variants_export[0]


@pytest.fixture(scope="session")
def executed(variants_export: tuple[ModelDir, list[str]]):
    """``executed(name)`` gives a variant, or skips where this machine does not execute it."""
    model, said = variants_export

    def get(name: str) -> Variant:
        if name not in model.card.variants:
            reasons = [s for s in said if "use another variant on this machine" in s and name in s]
            assert reasons, f"{name} is missing for no good reason: {said}"
            pytest.skip(reasons[0])
        return model.card.variants[name]

    return get


@pytest.fixture
def writable_model(uint8_model: ModelDir, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(uint8_model.path, tmp_path / "model"))


@pytest.fixture
def tiny_torchvision_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's ViT-B/16 with 24 channels and 3 blocks, for images of 64 pixels."""
    real = zoo.backbone_spec("vit_b_16")
    monkeypatch.setitem(zoo.SPECS, "vit_b_16", dataclasses.replace(real, size=64, pool=1))

    get_model = torchvision.models.get_model

    def build(name: str, weights: None, **options: int) -> torch.nn.Module:
        if name != "vit_b_16":
            return get_model(name, weights=weights, **options)
        return VisionTransformer(options["image_size"], 16, 3, 3, 24, 48)

    monkeypatch.setattr(torchvision.models, "get_model", build)


@pytest.fixture(scope="session")
def solar_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photos of solar cells in MVTec layout, laid out as the demo does."""
    script = Path(__file__).parent.parent / "benchmarks" / "elpv.py"
    spec = importlib.util.spec_from_file_location("elpv", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp("solar_cells")
    module.lay_out(root)
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium or Chrome that is installed here."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    with sync_api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        executable = found[0] if found else own if Path(own).exists() else None
        if executable is None:
            pytest.skip(f"no browser here: none of {', '.join(BROWSERS)} is installed")
        root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS + root)
        yield running
        running.close()
