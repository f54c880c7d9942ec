"""The exact dual (Gram) PCA: the subspace of good features of one layer.

With N images and D features, N << D, the N x N Gram matrix holds all that PCA needs:
G = Xc Xc^T = V L V^T, and the principal directions are the rows of W = L^-1/2 V^T Xc.
Sums run in float64 over tiles of columns, so nothing of size N x D is ever copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_runtime.errors import DataError

Features = NDArray[np.float32]
Floats = NDArray[np.float64]

TILE = 4096
"""Columns converted to float64 at a time."""


@dataclass(frozen=True)
class Rank:
    """How many components to keep: a fraction of the variance, or a number."""

    variance: float
    components: int | None = None

    def choose(self, eigenvalues: Floats) -> int:
        """Return k for eigenvalues in descending order.

        The fewest components whose cumulative variance reaches `variance`, or `components`;
        never more than the numerical rank.
        """
        limit = numerical_rank(eigenvalues)
        if self.components is not None:
            return min(self.components, limit)
        cumulative = np.cumsum(eigenvalues) / eigenvalues.sum()
        # A hair below, since the whole sum may round to just under 1.
        return min(int(np.searchsorted(cumulative, self.variance - 1e-12)) + 1, limit)


def numerical_rank(eigenvalues: Floats) -> int:
    """Eigenvalues (descending) that stand above float64 rounding."""
    floor = eigenvalues[0] * len(eigenvalues) * np.finfo(np.float64).eps
    return int((eigenvalues > floor).sum())


@dataclass(frozen=True)
class Subspace:
    """The affine subspace of good features.

    Attributes
    ----------
    mean
        mu, float32 (D,).
    components
        W, float32 (k, D), orthonormal rows, the first component first.
    spectrum
        All eigenvalues of the Gram matrix, float64 (N,), descending; divided by N - 1 they are
        the variances along the principal directions.
    captured
        Fraction of the variance that the k components hold.
    """

    mean: Features
    components: Features
    spectrum: Floats
    captured: float


def gram(features: Features) -> tuple[Floats, Floats]:
    """Return the mean (D,) and the Gram matrix (N, N) of the centred rows, both float64."""
    mean = np.concatenate([tile.mean(0) for _, tile in _tiles(features)])
    matrix = np.zeros((len(features),) * 2)
    for columns, tile in _tiles(features):
        tile -= mean[columns]
        matrix += tile @ tile.T
    return mean, matrix


def fit_pca(features: Features, mean: Floats, matrix: Floats, rank: Rank) -> Subspace:
    """Exact PCA of ``features`` (N, D) from their `gram`.

    Raises
    ------
    DataError
        When the features do not vary, or more components are asked for than N - 1.
    """
    count = len(features)
    if rank.components is not None and rank.components > count - 1:
        raise DataError(
            f"{rank.components} components asked for, {count} images give at most {count - 1}; "
            "ask for fewer or add images"
        )
    eigenvalues, vectors = eigh_descending(matrix)
    scale = float(np.square(mean).sum()) + eigenvalues[0] / count
    if eigenvalues[0] <= scale * 1e-12:
        raise DataError(
            f"the {count} images give the same features (zero variance): are they blank, or "
            "copies of one photo? Add photos of different good parts"
        )
    k = rank.choose(eigenvalues)
    coefficients = (vectors[:, :k] / np.sqrt(eigenvalues[:k])).T
    components = np.empty((k, features.shape[1]), np.float32)
    for columns, tile in _tiles(features):
        components[:, columns] = coefficients @ (tile - mean[columns])
    components *= _signs(components)[:, None]
    captured = float(eigenvalues[:k].sum() / eigenvalues.sum())
    return Subspace(mean.astype(np.float32), components, eigenvalues, captured)


def eigh_descending(matrix: Floats) -> tuple[Floats, Floats]:
    """Eigenvalues (descending, none below 0) and eigenvectors (in columns) of a Gram matrix."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return np.maximum(eigenvalues[::-1], 0.0), vectors[:, ::-1]


def _signs(components: Features) -> Features:
    """+1 or -1 for each row, making its entry of largest magnitude positive."""
    largest = np.abs(components).argmax(1)
    return np.where(components[np.arange(len(components)), largest] < 0, -1, 1).astype(np.float32)


def _tiles(features: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
    """Yield slices of columns with a fresh float64 copy of each."""
    for start in range(0, features.shape[1], TILE):
        columns = slice(start, min(start + TILE, features.shape[1]))
        yield columns, features[:, columns].astype(np.float64)
