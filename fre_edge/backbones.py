"""Frozen, truncated, pretrained backbones by name.

Layers are nodes of the traced graph, so any layer of any torchvision or timm model can be tapped,
and nothing beyond the last tap is kept. Channels and grids are learned from the network itself.
"""

from dataclasses import dataclass

from timm.models import create_feature_extractor
from torch import nn
from torch.fx import GraphModule

from fre_edge.folding import fold_batch_norms
from fre_edge.taps import default_layers, graph_nodes, ordered
from fre_edge.weights import WeightsInfo, load_weights, suit
from fre_edge.zoo import BackboneSpec, backbone_spec, create_model, prefix_tokens, resized
from fre_runtime.errors import UsageError


@dataclass(frozen=True)
class Backbone:
    """A truncated backbone in evaluation mode, with where its weights came from."""

    spec: BackboneSpec
    size: tuple[int, int]
    """Height and width of the images, in pixels; only transformers insist on them."""
    layers: tuple[str, ...]
    trunk: nn.Module
    """float32 (N, 3, H, W), normalised, to a dict of layer name to what the layer gives."""
    prefix: int
    """Class and register tokens before those of the patches; 0 for a convolutional network."""
    weights: WeightsInfo


def build_backbone(
    name: str,
    layers: tuple[str, ...] = (),
    weights: str = "auto",
    seed: int = 0,
    size: tuple[int, int] | None = None,
) -> Backbone:
    """Build a backbone, load its weights, and cut it after the last of ``layers``.

    Parameters
    ----------
    name
        ``timm/NAME``, ``torchvision/NAME``, or a plain name; see `fre_edge.zoo.backbone_spec`.
    layers
        Names of graph nodes, or prefixes of them (``layer3``); default: the backbone's own, else
        by the rule of `fre_edge.taps.default_layers`.
    weights
        ``auto``, ``random``, or the path of a state dict (.safetensors, .pth).
    seed
        For ``weights="random"`` only.
    size
        Height and width of the images; default: the backbone's own.

    Raises
    ------
    UsageError
        When the backbone or a layer does not exist, or cannot take images of ``size``.
    WeightsError
        When the weights cannot be had, are damaged, or do not fit.
    """
    spec = backbone_spec(name)
    model = create_model(spec, seed)
    prefix = prefix_tokens(model)
    try:
        nodes = graph_nodes(model)
        layers = ordered(layers or spec.layers, nodes)
        layers = layers or default_layers(model, nodes, spec.size, prefix)
    except UsageError as error:
        raise UsageError(f"backbone {name!r} {error}") from error
    trunk = _cut(model, layers)
    state, info = load_weights(spec, weights)
    if state is not None:
        # What lies beyond the last tap need not be in the file, nor fit. The trunk shares tensors.
        used = trunk.state_dict().keys()
        model.load_state_dict(suit(state, model.state_dict(), used, info), strict=False)
    size = size or (spec.size, spec.size)
    if size != (spec.size, spec.size):
        trunk = _cut(resized(model, spec, size), layers)
    return Backbone(spec, size, layers, fold_batch_norms(trunk), prefix, info)


def _cut(model: nn.Module, layers: tuple[str, ...]) -> GraphModule:
    """The part of ``model`` that ``layers`` need."""
    trunk: GraphModule = create_feature_extractor(model, list(layers))
    return trunk.eval().requires_grad_(False)
