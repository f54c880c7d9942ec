"""From a uint8 image to the feature tensors that FRE reconstructs: ``u = pool(phi_l(x))``."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fre_edge.backbones import Backbone
from fre_edge.grids import to_grid
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
    """Normalisation, truncated backbone, grids, average pooling.

    Takes uint8 (N, H, W, 3) RGB, or float32 (N, 3, H, W) RGB in 0..1 with ``io="float"``; returns
    one float32 (N, C, h, w) tensor for each layer. Where ``pool`` does not divide a side, windows
    overlap a little, so that the cells stay evenly spread and no part of the image is left unseen.
    In the layers of ``overlap``, windows reach half of ``pool`` further to each side.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Backbone, pool: int, io: str = "uint8", overlap: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.trunk = backbone.trunk
        for module in self.trunk.modules():
            if isinstance(module, nn.Conv2d):  # the layout that a CPU's convolutions want
                module.to(memory_format=torch.channels_last)
        self.layers = backbone.layers
        self.prefix = backbone.prefix
        self.pool = pool
        self.margins = {layer: pool // 2 * (layer in overlap) for layer in self.layers}
        self.io = io
        unit = 255.0 if io == "float" else 1.0
        for name, values in (("mean", backbone.spec.mean), ("std", backbone.spec.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1) / unit)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the pooled features of each layer."""
        x = image.permute(0, 3, 1, 2).float() if self.io == "uint8" else image
        taps = self.trunk((x - self.mean) / self.std)
        size = (x.shape[2], x.shape[3])
        return [self._pooled(taps[layer], layer, size) for layer in self.layers]

    def _pooled(self, tap: Tensor, layer: str, size: tuple[int, int]) -> Tensor:
        features, margin = to_grid(tap, size, self.prefix), self.margins[layer]
        if self.pool == 1:
            return features
        height, width = features.shape[-2:]
        if height % self.pool == 0 and width % self.pool == 0:
            # At the border, windows average what there is of them.
            window = self.pool + 2 * margin
            return F.avg_pool2d(features, window, self.pool, margin, count_include_pad=False)
        rows, columns = (torch.tensor(_windows(s, self.pool, margin)) for s in (height, width))
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
        shapes = []
        for layer in self.layers:
            try:
                pooled = self._pooled(taps[layer], layer, (height, width))
            except UsageError as error:
                raise UsageError(f"layer {layer!r} {error}") from error
            shapes.append(FeatureShape(*pooled.shape[1:]))
        return shapes


def _windows(side: int, pool: int, margin: int) -> list[list[float]]:
    """Weights (cells, side) that average ``side`` values into ceil(side / pool) even windows.

    Each reaches ``margin`` values further, as far as there are any.
    """
    cells = -(-side // pool)
    weights = []
    for cell in range(cells):
        start = max(0, cell * side // cells - margin)
        end = min(side, -(-(cell + 1) * side // cells) + margin)
        weights.append([float(start <= i < end) / (end - start) for i in range(side)])
    return weights
