"""Backbones by name: what the paper, measurements and the libraries' own metadata say of them.

``timm/NAME`` and ``torchvision/NAME`` are what they say. A plain NAME is looked up here, then in
torchvision, then in timm.
"""

import difflib
import logging
from dataclasses import dataclass, field
from typing import Literal

import timm
import torch
import torchvision
from timm.models import PretrainedCfg
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

from fre_runtime.errors import UsageError

log = logging.getLogger(__name__)

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class BackboneSpec:
    """What must be known of a backbone before it is built."""

    name: str
    """As the card records it; it finds the same backbone again."""
    library: Literal["timm", "torchvision"]
    model: str
    """Name of the constructor in the library."""
    layers: tuple[str, ...] = ()
    """Taps used when none are given; empty = those of `fre_edge.taps.default_layers`."""
    size: int = 256
    """Side of the square input image, in pixels."""
    pool: int = 2
    """Side of the average-pooling window over each tap."""
    overlap: tuple[str, ...] = ()
    """Taps whose pooling windows reach further and overlap."""
    max_components: dict[str, int] = field(default_factory=dict)
    """Taps that do better with no more components than this."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """RGB, on the 0..255 scale."""
    std: tuple[float, ...] = IMAGENET_STD


def _lite(name: str) -> BackboneSpec:
    # The weights were trained on (x - 127) / 128.
    return BackboneSpec(
        name,
        "timm",
        f"tf_{name}",
        ("blocks.3", "blocks.5.2"),
        overlap=("blocks.5.2",),
        max_components={"blocks.5.2": 80},
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
    )


# Layers of the lites were found by measurement (benchmarks/quality); layers and pooling of the
# ResNets, VGG and EfficientNet-B5 are those of the paper's code.
SPECS = {
    spec.name: spec
    for spec in (
        _lite("efficientnet_lite0"),
        _lite("efficientnet_lite1"),
        _lite("efficientnet_lite2"),
        BackboneSpec("resnet18", "torchvision", "resnet18", ("layer3",)),
        BackboneSpec("resnet50", "torchvision", "resnet50", ("layer3",)),
        BackboneSpec("wide_resnet50_2", "torchvision", "wide_resnet50_2", ("layer3",)),
        BackboneSpec("vgg16", "torchvision", "vgg16", ("features.22",), pool=4),
        BackboneSpec(
            "efficientnet_b5", "torchvision", "efficientnet_b5", ("features.6",), size=456
        ),
    )
}


def backbone_spec(name: str) -> BackboneSpec:
    """Return what is known of the backbone ``name``.

    Raises
    ------
    UsageError
        When neither library has it; with the nearest names.
    """
    library, _, model = name.rpartition("/")
    if library not in ("", "timm", "torchvision"):
        raise UsageError(
            f"backbone {name!r}: there is no library {library!r}; write timm/NAME or "
            "torchvision/NAME"
        )
    known = torchvision.models.list_models(module=torchvision.models)
    if model in SPECS and library in ("", SPECS[model].library):
        return SPECS[model]
    if library != "timm" and model in known:
        if not library and timm.is_model(model):
            log.info("backbone %s: torchvision's; timm's is timm/%s", model, model)
        return _from_torchvision(model)
    if library != "torchvision" and timm.is_model(model):
        return _from_timm(model)
    names = [*SPECS, *(known if library != "timm" else [])]
    names += [f"timm/{other}" for other in timm.list_models()] if library != "torchvision" else []
    begin = [other for other in names if other.rpartition("/")[2].startswith(model)]
    near = begin[:3] or difflib.get_close_matches(name, names, 3, 0.4) or sorted(SPECS)
    raise UsageError(f"backbone {name!r} does not exist; did you mean {' or '.join(near)}?")


def _from_torchvision(model: str) -> BackboneSpec:
    """By the transforms of its first published weights, which `fre_edge.weights` loads."""
    entry = next(iter(torchvision.models.get_model_weights(model)))
    transforms = entry.transforms()
    return _spec(model, "torchvision", transforms.crop_size[0], transforms.mean, transforms.std)


def _from_timm(model: str) -> BackboneSpec:
    """By the default configuration of its weights."""
    try:
        config = timm.get_pretrained_cfg(model) or PretrainedCfg()
    except RuntimeError as error:  # the architecture exists, the tag does not
        name, tag = model.split(".", 1)
        tags = ", ".join(timm.list_models(f"{name}.*", pretrained=True)) or name
        raise UsageError(f"timm's {name} has no weights {tag!r}; choose {tags}") from error
    return _spec(model, "timm", config.input_size[1], config.mean, config.std)


def _spec(
    model: str,
    library: Literal["timm", "torchvision"],
    size: int,
    mean: list[float] | tuple[float, ...],
    std: list[float] | tuple[float, ...],
) -> BackboneSpec:
    return BackboneSpec(
        name=f"timm/{model}" if library == "timm" else model,
        library=library,
        model=model,
        size=size,
        # About 8 x 8 cells at stride 16, the grid that measured best.
        pool=max(1, round(size / 128)),
        mean=tuple(255.0 * value for value in mean),
        std=tuple(255.0 * value for value in std),
    )


def create_model(spec: BackboneSpec, seed: int) -> nn.Module:
    """Build the whole network with random weights, for images of the size of ``spec``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.library == "timm":
            model = timm.create_model(spec.model, pretrained=False)
        else:
            # torchvision's transformers are built for one size, which is not always their 224.
            sized = {"image_size": spec.size} if spec.model.startswith("vit_") else {}
            model = torchvision.models.get_model(spec.model, weights=None, **sized)
    built: nn.Module = model.eval().requires_grad_(False)
    return built


def prefix_tokens(model: nn.Module) -> int:
    """Class and register tokens that a transformer puts before those of its patches."""
    return int(getattr(model, "num_prefix_tokens", isinstance(model, VisionTransformer)))


def resized(model: nn.Module, spec: BackboneSpec, size: tuple[int, int]) -> nn.Module:
    """Make a network with position embeddings take images of ``size``; others take any.

    Raises
    ------
    UsageError
        When it cannot take such images.
    """
    try:
        if isinstance(model, VisionTransformer):
            if size[0] != size[1]:
                raise ValueError("torchvision's transformers take square images only")
            state = interpolate_embeddings(size[0], model.patch_size, model.state_dict())
            model = torchvision.models.get_model(spec.model, weights=None, image_size=size[0])
            model.load_state_dict(state)
        elif hasattr(model, "set_input_size"):
            model.set_input_size(img_size=size)  # type: ignore[operator]
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"backbone {spec.name!r} cannot take images of {size[0]} x {size[1]} pixels ({error}); "
            f"its own size is {spec.size}"
        ) from error
    return model.eval().requires_grad_(False)
