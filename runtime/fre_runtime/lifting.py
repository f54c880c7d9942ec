"""Bilinear values of a map anywhere in the photo that it is of."""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fre_runtime.rect import Frame

Grid = NDArray[np.float32]
"""A map, (h, w)."""

BAND = 256
"""Rows that are lifted at a time."""


def lifted(grid: Grid, frame: Frame, region: Frame, height: int, width: int) -> Grid:
    """Bilinear values of a map at ``height`` x ``width`` points spread evenly over ``region``.

    ``grid`` (h, w) covers ``frame``; beyond the centres of its outer cells it goes on as they are.
    """
    if frame == region:
        stretched: Any = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        return stretched  # type: ignore[no-any-return]
    y = region.y + (np.arange(height) + 0.5) * (region.height / height)
    x = region.x + (np.arange(width) + 0.5) * (region.width / width)
    columns = taps(x, frame.x, frame.width, grid.shape[1])
    out = np.empty((height, width), np.float32)
    for start in range(0, height, BAND):
        rows = taps(y[start : start + BAND], frame.y, frame.height, grid.shape[0])
        out[start : start + BAND] = sampled(grid, rows, columns)
    return out


class Taps(NamedTuple):
    """Between which two cells each point lies, and how near to the second."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    share: Grid


def taps(points: NDArray[np.floating[Any]], start: float, length: float, cells: int) -> Taps:
    """Where ``points`` lie among the centres of ``cells`` from ``start`` over ``length``."""
    at = np.clip((points - start) * (cells / length) - 0.5, 0, cells - 1)
    lower = np.floor(at).astype(np.int64)
    return Taps(lower, np.minimum(lower + 1, cells - 1), (at - lower).astype(np.float32))


def sampled(grid: Grid, rows: Taps, columns: Taps) -> Grid:
    """Bilinear values of a map (h, w), (points of rows, points of columns)."""
    wide = grid[:, columns.lower] * (1 - columns.share) + grid[:, columns.upper] * columns.share
    share = rows.share[:, None]
    return np.asarray(wide[rows.lower] * (1 - share) + wide[rows.upper] * share, np.float32)
