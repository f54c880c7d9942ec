"""Several layers, one map and one score.

The paper does not say how its three layers are fused; this is ours. Each layer counts in units of
its own mean over held-out good images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fre_edge.features import FeatureShape
from fre_edge.scores import image_scores
from fre_edge.strategies.base import Floats


class Fusion(NamedTuple):
    """What makes the layers' errors comparable."""

    means: tuple[float, ...]
    """Mean of each layer's M(i, j) over held-out good images."""
    map_weights: tuple[float, ...]
    """Factors on each layer's map; 1 for a single layer."""
    score_weights: tuple[float, ...]
    """Factors on each layer's score; 1 for a single layer."""


def finest_grid(shapes: Sequence[FeatureShape]) -> tuple[int, int]:
    """Height and width of the finest grid among ``shapes``."""
    return max((shape.height, shape.width) for shape in shapes)


class Fuse(nn.Module):
    """Average the layers' weighted scores and, lifted bilinearly to the finest grid, their maps.

    All cells of all layers are handled as one vector in units of each layer's mean error: a few
    small matrix products, where each node of its own would cost more than its arithmetic.
    """

    unit: Tensor
    lift: Tensor
    factors: Tensor

    def __init__(self, shapes: Sequence[FeatureShape], fusion: Fusion, score: str) -> None:
        super().__init__()
        self.score = score
        self.cells = [shape.height * shape.width for shape in shapes]
        grid = finest_grid(shapes)
        share = 1 / len(shapes)
        units, lifts, factors = [], [], []
        for shape, cells, mean, map_weight, score_weight in zip(
            shapes, self.cells, *fusion, strict=True
        ):
            units += [1 / (mean * shape.channels)] * cells
            lifts.append(_lift(shape, grid) * (mean * map_weight * share))
            factors.append(mean * score_weight * share)
        self.register_buffer("unit", torch.tensor(units, dtype=torch.float64))
        self.register_buffer("lift", torch.cat(lifts) if len(shapes) > 1 else lifts[0][0, 0])
        self.register_buffer("factors", torch.tensor(factors, dtype=torch.float64))

    def forward(
        self, energies: Sequence[Tensor], expected: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Fuse sums of squared errors.

        Parameters
        ----------
        energies
            sum_c e(c,i,j)^2 of each layer, (N, h * w) in row-major order.
        expected
            What all of them are divided by, (N, 1), > 0; None = 1.

        Returns
        -------
        The score S (N,), and the map M (N, H * W) on the finest grid, both >= 0.
        """
        cells = (torch.cat(list(energies), 1) if len(energies) > 1 else energies[0]) * self.unit
        if expected is not None:
            cells = cells / expected
        scores = (image_scores(cells, self.cells, self.score) * self.factors).sum(1)
        return scores, cells @ self.lift if len(energies) > 1 else cells * self.lift


def _lift(shape: FeatureShape, grid: tuple[int, int]) -> Tensor:
    """Bilinear interpolation as a matrix, float64 (h * w, H * W)."""
    cells = shape.height * shape.width
    basis = torch.eye(cells, dtype=torch.float64).reshape(cells, 1, shape.height, shape.width)
    if grid != (shape.height, shape.width):
        basis = F.interpolate(basis, grid, mode="bilinear")
    return basis.flatten(1)


def held_out_fusion(
    maps: list[Floats], shapes: list[FeatureShape], score: str
) -> tuple[Fusion, Floats, Floats]:
    """Weigh the layers by their means over held-out good images.

    Parameters
    ----------
    maps
        Held-out error maps of each layer, float64 (N, h, w).
    shapes
        Feature shape of each layer.
    score
        One of `fre_edge.options.SCORES`.

    Returns
    -------
    The fusion, the fused score of each image (N,), and its largest fused M(i, j) (N,).
    """
    # A perfect reconstruction has the mean 0; any unit will do then.
    means = tuple(float(layer.mean()) or 1.0 for layer in maps)
    one = (1.0,) * len(maps)
    fusion = Fusion(means, one, one)
    if len(maps) > 1:
        alone = [
            fuse_maps([layer], [shape], Fusion((mean,), (1.0,), (1.0,)), score)[0]
            for layer, shape, mean in zip(maps, shapes, means, strict=True)
        ]
        fusion = Fusion(
            means,
            tuple(1.0 / mean for mean in means),
            tuple(1.0 / (float(scores.mean()) or 1.0) for scores in alone),
        )
    return fusion, *fuse_maps(maps, shapes, fusion, score)


def fuse_maps(
    maps: Sequence[Floats], shapes: Sequence[FeatureShape], fusion: Fusion, score: str
) -> tuple[Floats, Floats]:
    """Score of each image (N,), and its largest M(i, j) (N,), from maps float64 (N, h, w)."""
    energies = [
        torch.from_numpy(layer).flatten(1) * shape.channels
        for layer, shape in zip(maps, shapes, strict=True)
    ]
    scores, fused = Fuse(shapes, fusion, score)(energies)
    return scores.numpy(), fused.amax(1).numpy()
