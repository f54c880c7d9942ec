"""From a uint8 image to the feature tensors that FRE reconstructs: ``u = pool(phi_l(x))``."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fre_edge.backbones import Backbone
from fre_runtime.errors import UsageError


class FeatureShape(NamedTuple):
    """Shape of one layer's pooled features."""

    channels: int
    height: int
    width: int

    @property
    def dimension(self) -> int:
        """D = C * H * W."""
        return self.channels * self.height * self.width


class FeatureExtractor(nn.Module):
    """Normalisation, truncated backbone, average pooling.

    Takes uint8 (N, H, W, 3) RGB, or float32 (N, 3, H, W) RGB in 0..1 with ``io="float"``; returns
    one float32 (N, C, h, w) tensor for each layer. Where ``pool`` does not divide a side, windows
    overlap a little, so that the cells stay evenly spread and no part of the image is left unseen.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, pool: int, io: str = "uint8") -> None:
        super().__init__()
        # Channels last is the layout that a CPU's convolutions want.
        self.trunk = backbone.trunk.to(memory_format=torch.channels_last)
        self.layers = backbone.layers
        self.pool = pool
        self.io = io
        unit = 255.0 if io == "float" else 1.0
        for name, values in (("mean", backbone.spec.mean), ("std", backbone.spec.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1) / unit)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the pooled features of each layer."""
        x = image.permute(0, 3, 1, 2).float() if self.io == "uint8" else image
        taps = self.trunk((x - self.mean) / self.std)
        return [self._pooled(taps[layer]) for layer in self.layers]

    def _pooled(self, features: Tensor) -> Tensor:
        if self.pool == 1:
            return features
        height, width = features.shape[-2:]
        if height % self.pool == 0 and width % self.pool == 0:
            return F.avg_pool2d(features, self.pool)
        rows, columns = (torch.tensor(_windows(side, self.pool)) for side in (height, width))
        return rows @ features @ columns.T

    @torch.inference_mode()
    def shapes(self, height: int, width: int) -> list[FeatureShape]:
        """Shape of each layer's features for images of ``height`` x ``width`` pixels.

        Raises `UsageError` for a layer without a grid.
        """
        try:
            taps = self.trunk((torch.zeros(1, 3, height, width) - self.mean) / self.std)
        except (AssertionError, RuntimeError) as error:
            raise UsageError(
                f"the backbone cannot take images of {height} x {width} pixels ({error}); "
                "give its own size with --size"
            ) from error
        for layer in self.layers:
            if taps[layer].ndim != 4:
                raise UsageError(
                    f"layer {layer!r} gives {taps[layer].ndim - 1} axes an image, 3 are needed "
                    "(channels, height, width); tap a convolutional layer before it"
                )
        return [FeatureShape(*self._pooled(taps[layer]).shape[1:]) for layer in self.layers]


def _windows(side: int, pool: int) -> list[list[float]]:
    """Weights (cells, side) that average ``side`` values into ceil(side / pool) even windows."""
    cells = -(-side // pool)
    weights = []
    for cell in range(cells):
        start, end = cell * side // cells, -(-(cell + 1) * side // cells)
        weights.append([float(start <= i < end) / (end - start) for i in range(side)])
    return weights
