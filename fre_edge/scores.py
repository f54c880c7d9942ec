"""How an anomaly map becomes the image score."""

from torch import Tensor

from fre_edge.options import SCORES
from fre_runtime.errors import UsageError


def image_score(maps: Tensor, score: str, unit: float = 1.0) -> Tensor:
    """Pool maps M of shape (N, 1, h, w) to scores S of shape (N,); monotone in each M(i, j).

    ``sum`` is the paper's S = sum_ij M(i,j); ``p2`` and ``p3`` are the power means
    S = (mean_ij M(i,j)^p)^(1/p), which weigh a small strong defect more; ``max`` is the largest
    M(i,j). ``unit`` is a typical M: powers are taken of M / unit, so that float32 neither
    overflows nor underflows; S does not depend on it.
    """
    if score == "sum":
        return maps.sum((1, 2, 3))
    if score == "max":
        return maps.amax((1, 2, 3))
    scaled = maps * (1 / unit)
    if score == "p2":
        return scaled.square().mean((1, 2, 3)).sqrt() * unit
    if score == "p3":
        return (scaled * scaled.square()).mean((1, 2, 3)).pow(1 / 3) * unit
    raise UsageError(f"score {score!r} does not exist; choose {', '.join(SCORES)}")
