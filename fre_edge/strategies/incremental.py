"""PCA in one pass over a stream, in memory that does not grow with it.

A mergeable sketch of twice as many rows as components are wanted, cut as it grows. What the cuts
threw away is known, so that `Subspace.shortfall` is a bound, not a hope: with the energy E, the
discarded trace t and the summed largest discarded eigenvalues b, the best k components capture at
most min(t, k b) / E more than these.
"""

from dataclasses import dataclass

import numpy as np

from fre_edge.features import FeatureShape
from fre_edge.strategies.base import DegenerateError, Floats, Folds, Rank, Rows, Subspace, point
from fre_edge.strategies.sketch import Sketch, Sketcher, merge

ROWS = 256
"""Rows of a fold's sketch where a share of the variance is asked for."""


def sketch_rows(rank: Rank) -> int:
    """Rows of each fold's sketch: enough for ``rank``."""
    return max(ROWS, 2 * (rank.components or 0))


@dataclass(frozen=True)
class Incremental:
    """One pass; time O(N l D), memory O(l D) with the l of `sketch_rows`."""

    def fit(self, rows: Rows, rank: Rank) -> Subspace:
        """See `Strategy`."""
        sketcher = Sketcher(rows.dimension, 2 * sketch_rows(rank))
        for batch in rows.batches():
            sketcher.add(batch)
        return sketcher.sketch(cut=False).subspace(rank)

    def held_out(
        self,
        rows: Rows,
        shape: FeatureShape,
        folds: Folds,
        rank: Rank,
        shown: Rows | None = None,
    ) -> Floats:
        """See `Strategy`; one pass makes a sketch of each fold, the others' are merged."""
        judged = rows if shown is None else shown
        sketches = []
        for held_out in folds:
            sketcher = Sketcher(rows.dimension, sketch_rows(rank))
            for start in range(0, len(held_out), sketcher.limit):
                sketcher.add(rows.take(held_out[start : start + sketcher.limit]))
            sketches.append(sketcher.sketch())
        maps = np.zeros((len(rows), shape.height, shape.width))
        for held_out, subspace in zip(folds, subspaces_without(sketches, rank), strict=True):
            maps[held_out] = subspace.error_maps(judged.take(held_out), shape)
        return maps


def subspaces_without(sketches: list[Sketch], rank: Rank) -> list[Subspace]:
    """For each fold's sketch, the subspace of all the others."""
    found = []
    for fold in range(len(sketches)):
        rest = merge(sketches[:fold] + sketches[fold + 1 :])
        try:
            found.append(rest.subspace(rank.within(rest.count)))
        except DegenerateError:  # though all folds together are not
            found.append(point(rest.mean))
    return found
