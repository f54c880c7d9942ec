"""What all strategies share: rows of features, the rank to keep, the subspace that comes out."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fre_edge.features import FeatureShape
from fre_runtime.errors import DataError

Features = NDArray[np.float32]
Floats = NDArray[np.float64]
Folds = list[NDArray[np.int64]]
"""Indices of the rows that are held out together; each row in exactly one fold."""

BATCH = 256
"""Rows read at a time."""
TILE = 4096
"""Columns converted to float64 at a time."""
FEW_ROWS = 1024
"""Rows worked on at a time where all of them would take too much memory."""


class DegenerateError(DataError):
    """The rows are too few, or too much alike, to have a direction."""


@dataclass(frozen=True)
class Rank:
    """How many components to keep: a fraction of the variance, or a number."""

    variance: float
    components: int | None = None
    most: int | None = None
    """No more than so many for the sake of `variance`."""

    @property
    def bound(self) -> int | None:
        """Components at most, as far as is known without eigenvalues."""
        return self.most if self.components is None else self.components

    def within(self, count: int) -> "Rank":
        """The same, of so few rows that not all `components` may be had."""
        return replace(self, components=self.components and min(self.components, count - 1))

    def choose(self, eigenvalues: Floats, total: float | None = None) -> int:
        """Return k for eigenvalues in descending order.

        The fewest components whose cumulative variance reaches `variance` of ``total`` (default:
        the sum of the eigenvalues), at most `most`, or `components`; never more than the numerical
        rank. Of the eigenvalues, no more than the first `bound` are needed.
        """
        limit = numerical_rank(eigenvalues)
        if self.components is not None:
            return min(self.components, limit)
        cumulative = np.cumsum(eigenvalues) / (eigenvalues.sum() if total is None else total)
        # A hair below, since the whole sum may round to just under 1.
        enough = int(np.searchsorted(cumulative, self.variance - 1e-12)) + 1
        return min(enough, limit, self.most or limit)

    def check(self, count: int) -> None:
        """Raise `DataError` where ``count`` rows cannot give so many components."""
        if count < 2:
            raise DegenerateError(f"{count} rows of features; at least 2 different ones are needed")
        if self.components is not None and self.components > count - 1:
            raise DataError(
                f"{self.components} components asked for, {count} images give at most {count - 1}; "
                "ask for fewer or add images"
            )


def numerical_rank(eigenvalues: Floats) -> int:
    """Eigenvalues (descending) that stand above float64 rounding."""
    floor = eigenvalues[0] * len(eigenvalues) * np.finfo(np.float64).eps
    return int((eigenvalues > floor).sum())


def check_varies(largest: float, mean: Floats, count: int) -> None:
    """Raise `DegenerateError` where the largest eigenvalue of the scatter is mere rounding."""
    scale = float(np.square(mean).sum()) + largest / count
    if largest <= scale * 1e-12:
        raise DegenerateError(
            f"the {count} images give the same features (zero variance): are they blank, or "
            "copies of one photo? Add photos of different good parts"
        )


def check_finite(rows: Features) -> None:
    """Raise `DataError` where a feature is NaN or infinite."""
    # One sum finds them at the speed of memory; float64, since finite values must not overflow.
    if not np.isfinite(rows.sum(dtype=np.float64)):
        columns = np.flatnonzero(~np.isfinite(rows).all(0))
        raise DataError(
            f"features hold a non-finite value (in {len(columns)} of {rows.shape[1]} columns, the "
            f"first is {columns[0]}); are the backbone's weights damaged?"
        )


@dataclass(frozen=True)
class Subspace:
    """The affine subspace of good features: u' = V^T (W (u - mu) + b) + mu.

    V = W and b = 0 for all strategies but the untied autoencoder.

    Attributes
    ----------
    mean
        mu, float32 (D,).
    components
        W, float32 (k, D), orthonormal rows, the first component first.
    spectrum
        Eigenvalues of the scatter matrix Xc^T Xc as far as the strategy knows them, float64,
        descending; divided by N - 1 they are the variances along the principal directions.
    energy
        Trace of the scatter matrix: the variance of all N rows, times N - 1.
    captured
        Fraction of it that the k components hold.
    shortfall
        What `captured` may lack at most of the best possible k components: 0 where it is exact; a
        bound for `incremental`, an estimate for `randomized`, against PCA for the autoencoders.
    decoder
        V of the untied autoencoder, float32 (k, D); None = W.
    bias
        b of the untied autoencoder, float32 (k,); None = 0.
    """

    mean: Features
    components: Features
    spectrum: Floats
    energy: float
    captured: float
    shortfall: float = 0.0
    decoder: Features | None = None
    bias: Features | None = None

    def residuals(self, rows: Features) -> Floats:
        """Return e = u - u' of each row, float64 (N, D)."""
        x = rows.astype(np.float64) - self.mean
        code = x @ self.components.T.astype(np.float64)
        if self.bias is not None:
            code += self.bias
        way_back = self.components if self.decoder is None else self.decoder
        x -= code @ way_back.astype(np.float64)
        return x

    def error_maps(self, rows: Features, shape: FeatureShape) -> Floats:
        """Return M(i,j) = 1/C sum_c e(c,i,j)^2 of each row, float64 (N, h, w)."""
        maps = np.empty((len(rows), shape.height, shape.width))
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            errors = self.residuals(rows[part]).reshape(-1, *shape)
            maps[part] = np.square(errors, out=errors).mean(1)
        return maps


@dataclass(frozen=True)
class Rows:
    """Features of one layer, float32 (N, D), in memory or in a file, to be read more than once.

    Attributes
    ----------
    array
        float32 (n, D), a plain array or `numpy.memmap`; it is never written to.
    chosen
        The rows that count, in this order; None = all.
    """

    array: Features
    chosen: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.array) if self.chosen is None else len(self.chosen)

    @property
    def dimension(self) -> int:
        """D."""
        return int(self.array.shape[1])

    def take(self, indices: NDArray[np.int64] | slice) -> Features:
        """Copy or view some rows, float32 (n, D)."""
        wanted = indices if self.chosen is None else self.chosen[indices]
        rows = np.asarray(self.array[wanted])
        check_finite(rows)
        return rows

    def without(self, held_out: NDArray[np.int64]) -> "Rows":
        """All rows but those at ``held_out``."""
        rest = np.setdiff1d(np.arange(len(self)), held_out)
        return Rows(self.array, rest if self.chosen is None else self.chosen[rest])

    def batches(self, size: int = BATCH) -> Iterator[Features]:
        """Yield the rows in order, ``size`` at a time; a row that is not finite is refused."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))
            release(self.array)

    def whole(self) -> Features:
        """The rows as one array, float32 (N, D); a copy only where some were left out."""
        return self.array if self.chosen is None else np.asarray(self.array[self.chosen])

    def mean(self) -> Floats:
        """mu, float64 (D,)."""
        total = np.zeros(self.dimension)
        for batch in self.batches():
            total += batch.sum(0, dtype=np.float64)
        return total / len(self)

    @cached_property
    def gram(self) -> tuple[Floats, Floats]:
        """Mean (D,) and Gram matrix (N, N) of the centred rows, both float64."""
        return gram(self.whole())


class Strategy(Protocol):
    """A way to fit; the same input gives the same bits on one machine."""

    def fit(self, rows: Rows, rank: Rank) -> Subspace:
        """Find the subspace of all rows.

        Raises
        ------
        DataError
            When the rows do not vary, hold a non-finite value, or are too few for ``rank``.
        """
        ...

    def held_out(
        self,
        rows: Rows,
        shape: FeatureShape,
        folds: Folds,
        rank: Rank,
        shown: Rows | None = None,
    ) -> Floats:
        """Anomaly map of each row under a subspace fitted without the row's fold.

        ``shown`` are the same photos as another backbone sees them, to be judged in place of
        ``rows``. Returns float64 (N, h, w): M(i,j) = 1/C sum_c e(c,i,j)^2.
        """
        ...


def refit_maps(
    strategy: Strategy,
    rows: Rows,
    shape: FeatureShape,
    folds: Folds,
    rank: Rank,
    shown: Rows | None = None,
) -> Floats:
    """`Strategy.held_out` by the plain way: fit once for each fold."""
    shown = rows if shown is None else shown
    maps = np.zeros((len(rows), shape.height, shape.width))
    for held_out in folds:
        rest = rows.without(held_out)
        try:
            subspace = strategy.fit(rest, rank.within(len(rest)))
        except DegenerateError:  # though the rows as a whole are not
            subspace = point(rest.mean())
        maps[held_out] = subspace.error_maps(shown.take(held_out), shape)
    return maps


def point(mean: Floats) -> Subspace:
    """Where rows do not vary: their mean alone."""
    empty = np.empty((0, len(mean)), np.float32)
    return Subspace(mean.astype(np.float32), empty, np.zeros(0), 0.0, 0.0)


def gram(features: Features) -> tuple[Floats, Floats]:
    """Return the mean (D,) and the Gram matrix (N, N) of the centred rows, both float64."""
    mean = np.empty(features.shape[1])
    matrix = np.zeros((len(features),) * 2)
    for columns, tile in tiles(features):
        mean[columns] = tile.mean(0)
        if not np.isfinite(mean[columns]).all():
            check_finite(features)
        tile -= mean[columns]
        _add_product(matrix, tile)
    return mean, _mirrored(matrix)


def check_leaves_error(subspace: "Subspace") -> None:
    """Refuse a subspace of every direction: what it leaves is rounding, and rejects nothing."""
    k, dimension = subspace.components.shape
    if k == dimension:
        raise DataError(
            f"{k} components of vectors with {dimension} features leave no error to detect by; "
            "ask for less variance or fewer components"
        )


def cross_products(shown: Features, features: Features, mean: Floats) -> Floats:
    """Return (X' - mu) (X - mu)^T for ``shown`` X' and ``features`` X, float64 (N, N)."""
    matrix = np.zeros((len(shown), len(features)))
    for columns, tile in tiles(features):
        tile -= mean[columns]
        other = columns_of(shown, columns, np.float64)
        other -= mean[columns]
        for start in range(0, len(other), FEW_ROWS):
            rows = slice(start, start + FEW_ROWS)
            matrix[rows] += other[rows] @ tile.T
    return matrix


def products(features: Features, mean: Floats) -> Floats:
    """Return (X - mu) (X - mu)^T, float64 (N, N)."""
    matrix = np.zeros((len(features),) * 2)
    for columns, tile in tiles(features):
        tile -= mean[columns]
        _add_product(matrix, tile)
    return _mirrored(matrix)


def _add_product(matrix: Floats, tile: Floats) -> None:
    """Add ``tile tile^T`` to the lower triangle of ``matrix``."""
    # Some rows at a time: the whole product would take as much memory again. By numpy, since the
    # threads of scipy's own BLAS would keep the cores from numpy's.
    for start in range(0, len(tile), FEW_ROWS):
        rows = slice(start, start + FEW_ROWS)
        until = tile[: rows.stop]
        matrix[rows, : len(until)] += tile[rows] @ until.T


def _mirrored(matrix: Floats) -> Floats:
    """Write the lower triangle of ``matrix`` into the upper one as well, in place."""
    if len(matrix) <= FEW_ROWS:  # one whole product, so both are there
        return matrix
    for start in range(0, len(matrix), FEW_ROWS):
        rows = slice(start, start + FEW_ROWS)
        matrix[:start, rows] = matrix[rows, :start].T
        square = matrix[rows, rows]
        square[:] = np.tril(square) + np.tril(square, -1).T
    return matrix


def tiles(features: Features) -> Iterator[tuple[slice, Floats]]:
    """Yield slices of columns with a fresh float64 copy of each."""
    for start in range(0, features.shape[1], TILE):
        columns = slice(start, min(start + TILE, features.shape[1]))
        yield columns, columns_of(features, columns, np.float64)


def columns_of(features: Features, columns: slice, dtype: type) -> NDArray[Any]:
    """A copy of some columns, (N, n)."""
    copy = np.empty((len(features), columns.stop - columns.start), dtype)
    # A few rows of a file at a time: the system brings in whole rows where a part is touched.
    for start in range(0, len(features), FEW_ROWS):
        rows = slice(start, start + FEW_ROWS)
        copy[rows] = features[rows, columns]
        release(features)
    return copy


def release(array: Features) -> None:
    """Let go of the pages of a file that were read: they would count as this process's memory."""
    file = getattr(array, "_mmap", None)
    if isinstance(file, mmap.mmap):
        file.madvise(mmap.MADV_DONTNEED)
