"""Worker: AnomaVision's PaDiM, exported to ONNX and run by its own ModelWrapper."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from worker import Call, Config, main

BATCH = 2
"""Photos at once while fitting: the value in its sample configuration."""


def prepare(config: Config, folder: Path) -> dict:
    import anomavision
    import torch
    from anomavision.export import ModelExporter
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    if config["backbone"] == "efficientnet_lite0":
        _register_lite0(config)
    else:
        _offer_weights(config)
    photos = anomavision.AnodetDataset(
        config["photos"],
        resize=(config["size"],) * 2,
        crop_size=None,
        mean=[v / 255 for v in config["mean"]],
        std=[v / 255 for v in config["std"]],
    )
    assert len(photos) == config["images"], f"{len(photos)} photos, not {config['images']}"
    loader = DataLoader(photos, batch_size=BATCH, shuffle=False)  # as its `train` does
    model = anomavision.Padim(
        backbone=config["backbone"],
        device=torch.device("cpu"),
        layer_indices=config["layer_indices"],
        feat_dim=config["n_features"],
    )
    start = time.perf_counter()
    model.fit(loader)
    seconds = time.perf_counter() - start
    model.eval()
    torch.save(model, folder / "model.pt")
    exporter = ModelExporter(folder / "model.pt", folder, logging.getLogger("export"), "cpu")
    path = exporter.export_onnx((1, 3, config["size"], config["size"]), "model.onnx")
    assert path is not None, "its exporter failed; see the log"
    image = np.load(config["image"])
    with torch.no_grad():
        expected = model.predict(_batch(config)(image))[0].item()
    call, _ = serve(config, folder)
    got = float(np.ravel(call(image)[0])[0])
    assert abs(got - expected) < 1e-2 * abs(expected), f"score {got}, PyTorch's {expected}"
    return {"fit_s": seconds, "notes": ["exported by its ModelExporter"]}


def serve(config: Config, folder: Path) -> tuple[Call, dict]:
    import onnxruntime
    from anomavision.inference.model.wrapper import ModelWrapper

    model = ModelWrapper(str(folder / "model.onnx"), "cpu")
    batch = _batch(config)

    def call(image: Any) -> Any:
        return model.predict(batch(image))

    return call, {
        "deployment": f"ModelWrapper, ONNX Runtime {onnxruntime.__version__}",
        "precision": "f32",
        "threads": model.backend.session.get_session_options().intra_op_num_threads
        or "its default, one a core",
    }


def _batch(config: Config) -> Callable[[Any], Any]:
    """Return its own way from a frame to a batch."""
    from anomavision.utils import create_image_transform, to_batch

    transform = create_image_transform(
        resize=(config["size"],) * 2,
        mean=[v / 255 for v in config["mean"]],
        std=[v / 255 for v in config["std"]],
    )
    return lambda image: to_batch([image], transform)


def _offer_weights(config: Config) -> None:
    """Put our weights where torchvision keeps those that AnomaVision would download."""
    import torch
    from safetensors.torch import load_file
    from torchvision.models import get_model_weights

    url = get_model_weights(config["backbone"]).DEFAULT.url
    os.environ["TORCH_HOME"] = str(Path("torch_home").absolute())
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(load_file(config["state"]), path)


def _register_lite0(config: Config) -> None:
    """Add EfficientNet-Lite0 to its tables of backbones, its stages under ResNet's names."""
    import timm
    from anomavision.algorithm.common import feature_extraction
    from anomavision.algorithm.padim import padim
    from safetensors.torch import load_file
    from torch.nn import Identity, Module, Sequential

    def build(weights: None, progress: bool) -> Module:
        del weights, progress
        net = timm.create_model(config["timm"], pretrained=False)
        net.load_state_dict(load_file(config["state"]))
        stages = Module()
        stages.conv1, stages.bn1, stages.relu = net.conv_stem, net.bn1, Identity()
        stages.maxpool = net.blocks[0]
        stages.layer1, stages.layer2 = net.blocks[1], net.blocks[2]
        stages.layer3 = Sequential(net.blocks[3], net.blocks[4])
        return stages

    feature_extraction.BACKBONES["efficientnet_lite0"] = (build, None)
    padim.BACKBONE_FEATURE_SIZES["efficientnet_lite0"] = {0: [24], 1: [40], 2: [112]}


if __name__ == "__main__":
    main(prepare, serve)
