"""Worker: one model of anomalib, exported to OpenVINO and run by its own OpenVINOInferencer."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from worker import Call, Config, main

OUTPUTS = {"pred_score", "pred_label", "anomaly_map", "pred_mask"}
FRE_EPOCHS = 2
FRE_ALL_EPOCHS = 220


def prepare(config: Config, folder: Path) -> dict:
    import torch
    from anomalib.data import Folder
    from anomalib.engine import Engine

    torch.manual_seed(0)
    notes = []
    model = _model(config)
    if config["model"] == "Patchcore" and config["random_coreset"]:
        model.model.subsample_embedding = lambda ratio: _random_coreset(model.model, ratio)
        notes.append("coreset: a random subset of the size that the greedy choice would have")
    epochs = FRE_EPOCHS if config["model"] == "Fre" else 1
    engine = Engine(
        max_epochs=epochs,
        limit_val_batches=0,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder / "engine",
    )
    photos = Folder(
        name="photos",
        root=config["photos"],
        normal_dir=".",
        test_split_mode="none",
        val_split_mode="none",
        num_workers=0,
    )
    start = time.perf_counter()
    engine.fit(model, datamodule=photos)
    seconds = time.perf_counter() - start
    trained = len(photos.train_data)
    assert trained == config["images"], f"trained on {trained} photos, not {config['images']}"
    result: dict[str, Any] = {"fit_s": seconds}
    if config["model"] == "Fre":
        result = {"fit_s": seconds / epochs * FRE_ALL_EPOCHS, "epoch_s": seconds / epochs}
        notes.append(f"trained for {epochs} epochs; fit = {FRE_ALL_EPOCHS} times one epoch")
    if config["model"] == "Patchcore":
        result["memory_bank"] = list(model.model.memory_bank.shape)
    model.eval()
    image = _tensor(np.load(config["image"]))
    _calibrate(model, image)
    with torch.no_grad():
        expected = model(image)
    note = _export(model, folder, image, expected)
    return result | {"notes": [*notes, note]}


def serve(config: Config, folder: Path) -> tuple[Call, dict]:
    import openvino
    from anomalib.deploy import OpenVINOInferencer

    inferencer = OpenVINOInferencer(
        folder / "model.xml",
        device="CPU",
        config={
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": config["threads"],
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
        },
    )
    version = openvino.get_version().split("-")[0]
    return inferencer.predict, {
        "deployment": f"OpenVINOInferencer, OpenVINO {version}",
        "precision": inferencer.model.get_property("INFERENCE_PRECISION_HINT").to_string(),
        "threads": inferencer.model.get_property("INFERENCE_NUM_THREADS"),
    }


def _model(config: Config) -> Any:
    """Build the model on our backbone; its extractor takes a module and any of its graph nodes."""
    import timm
    import torch
    from anomalib.models import Fre, Padim, Patchcore
    from anomalib.pre_processing import PreProcessor
    from safetensors.torch import load_file
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    backbone = timm.create_model(config["timm"], pretrained=False)
    backbone.load_state_dict(load_file(config["state"]))
    backbone.eval().requires_grad_(False)
    size = config["size"]
    probe = torch.rand(1, 3, size, size)
    before = backbone(probe)
    _pad_statically(backbone)
    assert torch.equal(backbone(probe), before), "static padding changed the backbone"
    normalize = Normalize([v / 255 for v in config["mean"]], [v / 255 for v in config["std"]])
    common: dict[str, Any] = {
        "backbone": backbone,
        "pre_trained": False,
        "pre_processor": PreProcessor(Compose([Resize((size, size), antialias=True), normalize])),
        "evaluator": False,
        "visualizer": False,
    }
    layers = config["layers"]
    if config["model"] == "Patchcore":
        return Patchcore(layers=layers, coreset_sampling_ratio=config["ratio"], **common)
    if config["model"] == "Padim":
        return Padim(layers=layers, n_features=config["n_features"], **common)
    (layer,) = layers
    return Fre(
        layer=layer,
        pooling_kernel_size=config["pool"],
        input_dim=int(np.prod(config["grid"])),
        latent_dim=config["latent_dim"],
        **common,
    )


def _pad_statically(backbone: Any) -> None:
    """Replace timm's convolutions that look at the image's size, which torchvision cannot trace.

    An image of even size needs kernel - stride rows more, the odd one below: the same numbers.
    """
    from timm.layers import Conv2dSame
    from torch.nn import Conv2d, Sequential, ZeroPad2d

    for name, same in list(backbone.named_modules()):
        if isinstance(same, Conv2dSame):
            total = same.kernel_size[0] - same.stride[0]
            before, after = total // 2, total - total // 2
            conv = Conv2d(
                same.in_channels,
                same.out_channels,
                same.kernel_size,
                same.stride,
                groups=same.groups,
                bias=same.bias is not None,
            )
            conv.load_state_dict(same.state_dict())
            parent, _, child = name.rpartition(".")
            padded = Sequential(ZeroPad2d((before, after) * 2), conv)
            setattr(backbone.get_submodule(parent), child, padded)


def _random_coreset(model: Any, ratio: float) -> None:
    import torch

    patches = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    model.memory_bank = patches[torch.randperm(len(patches))[: int(len(patches) * ratio)]]


def _tensor(image: Any) -> Any:
    import torch

    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def _calibrate(model: Any, image: Any) -> None:
    """Fill in the range that normalises scores; fitting without validation leaves it empty."""
    import torch

    with torch.no_grad():
        raw = model.model(model.pre_processor(image))
    post = model.post_processor
    for kind, value in (("image", raw.pred_score), ("pixel", raw.anomaly_map)):
        getattr(post, f"{kind}_min").fill_(0.5 * value.min())
        getattr(post, f"{kind}_max").fill_(1.5 * value.max())
        getattr(post, f"_{kind}_threshold").fill_(value.max())


def _export(model: Any, folder: Path, image: Any, expected: Any) -> str:
    """Write model.xml by anomalib's own export, or where that gives no usable file, by hand."""
    side = tuple(image.shape[-2:])
    try:
        with tempfile.TemporaryDirectory() as temporary:
            path = model.to_openvino(temporary, input_size=side)
            for file in path.parent.iterdir():
                shutil.copy(file, folder)
        _check(folder, image, expected)
        return "exported by to_openvino"
    except Exception as error:  # any of them calls for the other way
        own = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    import openvino
    import torch

    names = [name for name, value in expected._asdict().items() if value is not None]
    axes = {name: {0: "batch_size"} for name in ["input", *names]}
    torch.onnx.export(
        model,
        (image,),
        str(folder / "model.onnx"),
        input_names=["input"],
        output_names=names,
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    openvino.save_model(
        openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False
    )
    _check(folder, image, expected)
    return f"exported by torch.onnx.export(dynamo=False), since to_openvino gave: {own}"


def _check(folder: Path, image: Any, expected: Any) -> None:
    """Demand the four outputs, and the values that PyTorch gives."""
    import openvino

    model = openvino.Core().compile_model(
        folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    names = {name for output in model.outputs for name in output.get_names()}
    if not names >= OUTPUTS:
        raise ValueError(f"the exported outputs are called {sorted(names)}")
    got = model(image.numpy())
    for name in ("pred_score", "anomaly_map"):
        want = getattr(expected, name).numpy()
        if got[name].shape != want.shape:
            raise ValueError(f"{name} has shape {got[name].shape}, not {want.shape}")
        error = float(np.abs(got[name] - want).max())
        if not error < 1e-2:
            raise ValueError(f"{name} is {error:.2g} off PyTorch's")


if __name__ == "__main__":
    main(prepare, serve)
