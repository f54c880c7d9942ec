"""The exact PCA of many short rows: by the D x D scatter matrix instead of the N x N Gram matrix.

S = Xc^T Xc = V L V^T; W holds the first columns of V. Scatters of disjoint rows add up, with
a term for their means: one pass over each fold gives those of all others, for the held-out maps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fre_edge.features import FeatureShape
from fre_edge.strategies.base import (
    DegenerateError,
    Features,
    Floats,
    Folds,
    Rank,
    Rows,
    Subspace,
    check_leaves_error,
    check_varies,
    point,
)
from fre_edge.strategies.pca import eigh_descending, signs

BATCH = 4096
"""Rows at a time; they are short."""


@dataclass(frozen=True)
class Moments:
    """Count, mean (D,) and scatter (D, D) of rows, all that a PCA needs."""

    count: int
    mean: Floats
    scatter: Floats

    @classmethod
    def of(cls, rows: Rows, indices: np.ndarray) -> "Moments":
        """Of the rows at ``indices``."""
        parts = []
        for start in range(0, len(indices), BATCH):
            batch = rows.take(indices[start : start + BATCH]).astype(np.float64)
            mean = batch.mean(0)
            batch -= mean
            parts.append(cls(len(batch), mean, batch.T @ batch))
        return cls.sum(parts)

    @classmethod
    def sum(cls, parts: Iterable["Moments"]) -> "Moments":
        """Of all rows of ``parts`` (Chan, Golub, LeVeque 1983)."""
        parts = list(parts)
        count = sum(part.count for part in parts)
        mean = np.asarray(sum(part.mean * (part.count / count) for part in parts))
        scatter = np.zeros_like(parts[0].scatter)
        for part in parts:
            off = part.mean - mean
            scatter += part.scatter + part.count * np.outer(off, off)
        return cls(count, mean, scatter)

    def subspace(self, rank: Rank) -> Subspace:
        """The exact principal subspace.

        Raises
        ------
        DataError
            When the rows do not vary, or the subspace would hold every direction.
        """
        rank.check(self.count)
        eigenvalues, vectors = eigh_descending(self.scatter)
        check_varies(eigenvalues[0], self.mean, self.count)
        k = rank.choose(eigenvalues)
        components: Features = np.ascontiguousarray(vectors[:, :k].T, np.float32)
        components *= signs(components)[:, None]
        energy = float(eigenvalues.sum())
        captured = float(eigenvalues[:k].sum()) / energy
        mean = self.mean.astype(np.float32)
        subspace = Subspace(mean, components, eigenvalues, energy, captured)
        check_leaves_error(subspace)
        return subspace


@dataclass(frozen=True)
class Covariance:
    """Exact; time O(N D^2), memory O(D^2) for each fold; for more rows than features."""

    def fit(self, rows: Rows, rank: Rank) -> Subspace:
        """See `Strategy`."""
        return Moments.of(rows, np.arange(len(rows))).subspace(rank)

    def held_out(
        self,
        rows: Rows,
        shape: FeatureShape,
        folds: Folds,
        rank: Rank,
        shown: Rows | None = None,
    ) -> Floats:
        """See `Strategy`."""
        judged = rows if shown is None else shown
        moments = [Moments.of(rows, fold) for fold in folds]
        maps = np.zeros((len(rows), shape.height, shape.width))
        for i, fold in enumerate(folds):
            rest = Moments.sum(part for j, part in enumerate(moments) if j != i)
            try:
                subspace = rest.subspace(rank.within(rest.count))
            except DegenerateError:  # though the rows as a whole are not
                subspace = point(rest.mean)
            maps[fold] = subspace.error_maps(judged.take(fold), shape)
        return maps
