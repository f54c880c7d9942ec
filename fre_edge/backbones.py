"""Frozen, truncated, ImageNet-pretrained backbones by name.

Each knows its own normalisation, default layers, image size and pooling; channels and grids are
learned from the network itself. Layers are nodes of the traced graph, so any layer of any
torchvision or timm model can be tapped, and nothing beyond the last tap is kept.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

import timm
import torch
import torchvision
from timm.models import create_feature_extractor, get_graph_node_names
from torch import nn

from fre_edge.weights import WeightsInfo, load_weights, suit
from fre_runtime.errors import UsageError

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class BackboneSpec:
    """What must be known of a backbone before it is built."""

    name: str
    library: Literal["timm", "torchvision"]
    model: str
    """Name of the constructor in the library."""
    layers: tuple[str, ...]
    """Taps used when none are given."""
    size: int = 256
    """Side of the square input image, in pixels."""
    pool: int = 2
    """Side of the average-pooling window over each tap."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """RGB, on the 0..255 scale."""
    std: tuple[float, float, float] = IMAGENET_STD


def _lite(name: str) -> BackboneSpec:
    # The weights were trained on (x - 127) / 128.
    return BackboneSpec(
        name, "timm", f"tf_{name}", ("blocks.3", "blocks.5.2"), mean=(127.0,) * 3, std=(128.0,) * 3
    )


# Layers and pooling of the ResNets and of EfficientNet-B5 are those of the paper's code.
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


@dataclass(frozen=True)
class Backbone:
    """A truncated backbone in evaluation mode, with where its weights came from."""

    spec: BackboneSpec
    layers: tuple[str, ...]
    trunk: nn.Module
    """float32 (N, 3, H, W), normalised, to a dict of layer name to (N, C, h, w)."""
    weights: WeightsInfo


def backbone_spec(name: str) -> BackboneSpec:
    """Return what is known of the backbone ``name``, the nearest names in the error if nothing."""
    if name in SPECS:
        return SPECS[name]
    others = torchvision.models.list_models(module=torchvision.models)
    if name in others:
        return BackboneSpec(name, "torchvision", name, ())
    near = difflib.get_close_matches(name, [*SPECS, *others], 3, 0.4) or sorted(SPECS)
    raise UsageError(f"backbone {name!r} does not exist; did you mean {' or '.join(near)}?")


def build_backbone(
    name: str, layers: tuple[str, ...] = (), weights: str = "auto", seed: int = 0
) -> Backbone:
    """Build a backbone, load its weights, and cut it after the last of ``layers``.

    Parameters
    ----------
    name
        A key of `SPECS`, or any torchvision classification model (then give ``layers``).
    layers
        Names of graph nodes, or prefixes of them (``layer3``); default: the backbone's own.
    weights
        ``auto``, ``random``, or the path of a state dict (.safetensors, .pth).
    seed
        For ``weights="random"`` only.

    Raises
    ------
    UsageError
        When the backbone or a layer does not exist.
    WeightsError
        When the weights cannot be had, are damaged, or do not fit.
    """
    spec = backbone_spec(name)
    layers = layers or spec.layers
    if not layers:
        raise UsageError(f"backbone {name!r} has no default layers; name some with --layers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.library == "timm":
            model = timm.create_model(spec.model, pretrained=False)
        else:
            model = torchvision.models.get_model(spec.model, weights=None)
    model.eval().requires_grad_(False)
    layers = _ordered(name, model, layers)
    state, info = load_weights(name, weights)
    if state is not None:
        model.load_state_dict(suit(state, model.state_dict(), info))
    trunk = create_feature_extractor(model, list(layers)).eval().requires_grad_(False)
    return Backbone(spec, layers, trunk, info)


def _ordered(name: str, model: nn.Module, layers: tuple[str, ...]) -> tuple[str, ...]:
    """Check ``layers`` and sort them from the input to the output."""
    try:
        nodes = get_graph_node_names(model)[1][1:]  # the first is the input image
    except Exception as error:  # tracing raises many kinds
        raise UsageError(f"backbone {name!r} cannot be traced ({error})") from error
    place = {}
    for layer in layers:
        inside = [i for i, node in enumerate(nodes) if f"{node}.".startswith(f"{layer}.")]
        if not inside:
            prefixes = {".".join(node.split(".")[:n]) for node in nodes for n in range(1, 9)}
            near = difflib.get_close_matches(layer, sorted(prefixes), 5, 0.3)
            raise UsageError(
                f"backbone {name!r} has no layer {layer!r}; did you mean {' or '.join(near)}?"
            )
        place[layer] = inside[-1]
    return tuple(sorted(layers, key=place.__getitem__))
