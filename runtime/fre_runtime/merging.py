"""The maps of overlapping tiles become one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_runtime.geometry import Plan
from fre_runtime.lifting import Grid, sampled, taps
from fre_runtime.rect import Frame, Rect

MAX_CELLS = 4_000_000
"""Largest number of cells of a merged map: its memory does not follow the photo's."""


class Merge:
    """The maps of overlapping tiles become one map of a region.

    Each tile counts most at its centre and next to nothing at its edge, where the network sees
    least: neighbours pass into each other without a seam. The merged value never exceeds the
    tiles' own.

    Parameters
    ----------
    plan
        The tiles.
    height, width
        Of the model's input, in pixels.
    grid
        Height and width of one tile's map, in cells.
    """

    def __init__(self, plan: Plan, height: int, width: int, grid: tuple[int, int]) -> None:
        frame = plan.frame(plan.tiles[0], height, width)
        rows = plan.region.height * grid[0] / frame.height
        columns = plan.region.width * grid[1] / frame.width
        shrink = min(1.0, (MAX_CELLS / (rows * columns)) ** 0.5)
        self._plan, self._input = plan, (height, width)
        self._sum = np.zeros([max(1, round(n * shrink)) for n in (rows, columns)], np.float32)
        self._weight = np.zeros_like(self._sum)

    def add(self, tile: Rect, grid: Grid) -> None:
        """Add the map (h, w) of one tile."""
        region, frame = self._plan.region, self._plan.frame(tile, *self._input)
        if (
            frame == Frame(*region) and grid.shape == self._sum.shape
        ):  # one tile is all: nothing to merge
            self._sum, self._weight = grid, np.ones_like(grid)
            return
        rows = _cells(tile.y - region.y, tile.height, region.height, self._sum.shape[0])
        columns = _cells(tile.x - region.x, tile.width, region.width, self._sum.shape[1])
        y = region.y + (rows + 0.5) * (region.height / self._sum.shape[0])
        x = region.x + (columns + 0.5) * (region.width / self._sum.shape[1])
        part = sampled(
            grid,
            taps(y, frame.y, frame.height, grid.shape[0]),
            taps(x, frame.x, frame.width, grid.shape[1]),
        )
        weight = np.outer(_hat(y, tile.y, tile.height), _hat(x, tile.x, tile.width))
        where = np.ix_(rows, columns)
        self._sum[where] += part * weight
        self._weight[where] += weight

    def result(self) -> Grid:
        """The merged map, float32, over the plan's region; 0 where no tile lies."""
        return np.asarray(self._sum / np.maximum(self._weight, 1e-30), np.float32)


def _cells(start: int, length: int, total: int, cells: int) -> NDArray[np.int64]:
    """Cells of ``cells`` over ``total`` pixels whose centre lies in ``length`` from ``start``."""
    unit = total / cells
    first = int(np.ceil(start / unit - 0.5))
    last = int(np.ceil((start + length) / unit - 0.5))
    return np.arange(max(first, 0), min(last, cells))


def _hat(points: NDArray[np.floating[Any]], start: int, length: int) -> Grid:
    """1 in the middle, falling to almost 0 at both ends."""
    distance = np.minimum(points - start, start + length - points) * (2 / length)
    return np.asarray(np.maximum(distance, 1e-3), np.float32)
