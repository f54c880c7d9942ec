"""How an anomaly map becomes the image score."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fre_edge.options import SCORES
from fre_runtime.errors import UsageError

POWERS = {"p3": 3, "p2": 2, "sum": 1}


def image_scores(cells: Tensor, sizes: Sequence[int], score: str) -> Tensor:
    """Pool the maps of several layers, monotone in each M(i, j).

    ``sum`` is the paper's S = sum_ij M(i,j); ``p2`` and ``p3`` are the power means
    S = (mean_ij M(i,j)^p)^(1/p), which weigh a small strong defect more; ``max`` is the largest
    M(i,j).

    Parameters
    ----------
    cells
        M of all layers side by side, (N, sum of sizes). In units of a typical M, so that float32
        neither overflows nor underflows in the powers.
    sizes
        Cells of each layer.
    score
        One of `fre_edge.options.SCORES`.

    Returns
    -------
    (N, layers), in the same units.
    """
    if score == "max":
        return torch.stack([layer.amax(1) for layer in torch.split(cells, list(sizes), 1)], 1)
    if score not in POWERS:
        raise UsageError(f"score {score!r} does not exist; choose {', '.join(SCORES)}")
    power = POWERS[score]
    # Sums over each layer's cells as one matrix product.
    weights = torch.zeros(sum(sizes), len(sizes), dtype=cells.dtype)
    start = 0
    for column, size in enumerate(sizes):
        weights[start : start + size, column] = 1.0 if score == "sum" else 1 / size
        start += size
    powered = cells
    for _ in range(power - 1):
        powered = powered * cells
    pooled = powered @ weights
    return pooled if power == 1 else pooled.pow(1 / power)
