"""The truncated backbone alone, as one would time it: the limit for the whole model."""

import onnx
import torch

from fre_edge.backbones import Backbone
from fre_export.onnx_graph import trace


class Bare(torch.nn.Module):
    """Float input, taps out."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.trunk = backbone.trunk
        self.layers = backbone.layers

    def forward(self, x):
        """Map float32 (N, 3, H, W), normalised, to the taps."""
        taps = self.trunk(x)
        return [taps[layer] for layer in self.layers]


def bare_onnx(backbone: Backbone, size: tuple[int, int]) -> onnx.ModelProto:
    """The bare backbone with a dynamic batch."""
    names = [f"tap_{i}" for i in range(len(backbone.layers))]
    return trace(Bare(backbone).eval(), (torch.zeros(2, 3, *size),), ["input"], names)
