"""Which layers of a network to tap: nodes of its traced graph, named, sorted, or chosen by rule."""

import difflib
import math
from collections.abc import Iterator

import torch
from timm.models import get_graph_node_names
from torch import Tensor, nn

from fre_edge.grids import to_grid
from fre_runtime.errors import UsageError

STRIDE = 16
"""Pixels a cell of the default tap: what measured best, and the ResNets' layer of the paper."""


def graph_nodes(model: nn.Module) -> list[str]:
    """Names of the nodes of the network's graph, from the input to the output.

    Raises
    ------
    UsageError
        When the network cannot be traced.
    """
    try:
        return list(get_graph_node_names(model)[1][1:])  # the first is the input image
    except Exception as error:  # tracing raises many kinds
        raise UsageError(
            f"cannot be traced ({str(error).splitlines()[0]}); choose another backbone"
        ) from error


def ordered(layers: tuple[str, ...], nodes: list[str]) -> tuple[str, ...]:
    """Check that the ``layers`` exist and sort them from the input to the output."""
    place = {}
    for layer in layers:
        inside = [i for i, node in enumerate(nodes) if f"{node}.".startswith(f"{layer}.")]
        if not inside:
            known = list(dict.fromkeys(part for node in nodes for part in _modules(node)))
            near = difflib.get_close_matches(layer, known, 5, 0.3) or known[:5]
            raise UsageError(f"has no layer {layer!r}; did you mean {' or '.join(near)}?")
        place[layer] = inside[-1]
    return tuple(sorted(layers, key=place.__getitem__))


@torch.inference_mode()
def default_layers(
    model: nn.Module, nodes: list[str], size: int, prefix: int = 0
) -> tuple[str, ...]:
    """The tap of a network that nobody has measured.

    The last block whose cells are 16 pixels apart; in a network that keeps one stride from its
    patches on (a transformer, a mixer), the block at two thirds of its depth.

    Parameters
    ----------
    model
        The whole network.
    nodes
        Its `graph_nodes`.
    size
        Side of the images that it takes, in pixels.
    prefix
        Its class and register tokens; see `fre_edge.grids.to_grid`.

    Raises
    ------
    UsageError
        When it has no such layer.
    """
    modules = dict(model.named_modules())
    known = {name for node in nodes for name in _modules(node)} & modules.keys()
    strides = _strides({name: modules[name] for name in known}, model, size, prefix)
    if len(set(strides.values())) == 1:
        blocks = _longest_stack(modules, strides)
        if blocks:
            return (blocks[math.ceil(2 / 3 * len(blocks)) - 1],)
    # The shallowest module that ends at the stride: a stage, not a part of the one after it.
    found = [name for name, stride in strides.items() if stride == STRIDE]
    if not found:
        raise UsageError(f"has no layer with a stride of {STRIDE} pixels; name one with --layers")
    depth = min(name.count(".") for name in found)
    return ([name for name in found if name.count(".") == depth][-1],)


def _modules(node: str) -> Iterator[str]:
    """Modules that a node lies in, the outermost first, and itself."""
    parts = node.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _strides(
    modules: dict[str, nn.Module], model: nn.Module, size: int, prefix: int
) -> dict[str, int]:
    """Pixels a cell of what each module gives, to the next power of two, in the order of the run.

    Modules without a grid of several cells are left out.
    """
    strides: dict[str, int] = {}

    def note(name: str, output: object) -> None:
        strides.pop(name, None)
        if not isinstance(output, Tensor):
            return
        try:
            height = to_grid(output, (size, size), prefix).shape[2]
        except UsageError:
            return
        if height > 1:
            strides[name] = 2 ** round(math.log2(size / height))

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, module in modules.items()
    ]
    try:
        model(torch.zeros(1, 3, size, size))
    finally:
        for hook in hooks:
            hook.remove()
    return strides


def _longest_stack(modules: dict[str, nn.Module], strides: dict[str, int]) -> list[str]:
    """The blocks of the longest sequence among the outermost ones."""
    stacks: dict[str, list[str]] = {}
    for name in strides:
        parent = name.rpartition(".")[0]
        if isinstance(modules[parent], nn.Sequential | nn.ModuleList):
            stacks.setdefault(parent, []).append(name)
    if not stacks:
        return []
    depth = min(parent.count(".") for parent in stacks)
    return max((s for parent, s in stacks.items() if parent.count(".") == depth), key=len)
