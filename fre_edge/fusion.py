"""Several layers, one map and one score.

The paper does not say how its three layers are fused; this is ours. Each layer counts in units of
its own mean over held-out good images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fre_edge.features import FeatureShape
from fre_edge.scores import image_score
from fre_edge.subspace import Floats


class Fusion(NamedTuple):
    """What makes the layers' errors comparable: factors on each layer's map and score."""

    map_weights: tuple[float, ...]
    score_weights: tuple[float, ...]


def finest_grid(shapes: Sequence[FeatureShape]) -> tuple[int, int]:
    """Height and width of the finest grid among ``shapes``."""
    return max((shape.height, shape.width) for shape in shapes)


def fuse(
    maps: Sequence[Tensor], fusion: Fusion, score: str, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Average the layers' weighted scores (N,) and, lifted bilinearly to ``grid``, their maps."""
    scores = torch.stack(
        [
            image_score(m, score, 1 / map_weight) * weight
            for m, map_weight, weight in zip(
                maps, fusion.map_weights, fusion.score_weights, strict=True
            )
        ]
    )
    lifted = torch.stack(
        [
            (m if m.shape[-2:] == grid else F.interpolate(m, grid, mode="bilinear")) * w
            for m, w in zip(maps, fusion.map_weights, strict=True)
        ]
    )
    return scores.mean(0), lifted.mean(0)


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
    tensors = [torch.from_numpy(layer)[:, None] for layer in maps]
    one = (1.0,) * len(maps)
    fusion = Fusion(one, one)
    if len(maps) > 1:
        fusion = Fusion(
            tuple(1.0 / float(m.mean()) for m in tensors),
            tuple(1.0 / float(image_score(m, score).mean()) for m in tensors),
        )
    scores, fused = fuse(tensors, fusion, score, finest_grid(shapes))
    return fusion, scores.numpy(), fused.amax((1, 2, 3)).numpy()
