"""The exact dual (Gram) PCA.

With N images and D features, N << D, the N x N Gram matrix holds all that PCA needs:
G = Xc Xc^T = V L V^T, and the principal directions are the rows of W = L^-1/2 V^T Xc.
Sums run in float64 over tiles of columns, so nothing of size N x D is ever copied: the features may
lie on disk.

In-sample residuals are far too small to set a threshold by. The held-out ones come out of the same
Gram matrix: for each fold a PCA of the other images, in the dual form, up to the final residual.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from fre_edge.features import FeatureShape
from fre_edge.strategies.base import (
    TILE,
    Features,
    Floats,
    Folds,
    Rank,
    Rows,
    Subspace,
    check_varies,
    columns_of,
    cross_products,
)

LARGE = 3000
"""Rows from which the eigenvectors are found in place: slower, in a third of the memory."""
SOME = 1000
"""Rows from which it is faster to find a few eigenvectors than all."""
TILE_BYTES = 2**27
"""Bytes of features converted to float64 at a time for held-out maps."""


@dataclass(frozen=True)
class Pca:
    """Exact; time O(N^2 D), memory O(N^2) beside the features."""

    def fit(self, rows: Rows, rank: Rank) -> Subspace:
        """See `Strategy`."""
        return fit_pca(rows.whole(), *rows.gram, rank)

    def held_out(
        self,
        rows: Rows,
        shape: FeatureShape,
        folds: Folds,
        rank: Rank,
        shown: Rows | None = None,
    ) -> Floats:
        """See `Strategy`."""
        mean, matrix = rows.gram
        if shown is None:
            return held_out_maps(rows.whole(), matrix, shape, folds, rank)
        features, others = rows.whole(), shown.whole()
        cross = cross_products(others, features, mean)
        return held_out_maps(features, matrix, shape, folds, rank, others, cross)


def fit_pca(features: Features, mean: Floats, matrix: Floats, rank: Rank) -> Subspace:
    """Exact PCA of ``features`` (N, D) from their mean and Gram matrix.

    Raises
    ------
    DataError
        When the features do not vary, or more components are asked for than N - 1.
    """
    rank.check(len(features))
    energy = float(np.trace(matrix))
    eigenvalues, vectors = eigh_descending(matrix, rank.bound)
    check_varies(eigenvalues[0], mean, len(features))
    k = rank.choose(eigenvalues, energy)
    components = directions(features, mean, eigenvalues, vectors, k)
    captured = min(1.0, float(eigenvalues[:k].sum()) / energy)
    return Subspace(mean.astype(np.float32), components, eigenvalues, energy, captured)


def directions(
    features: Features, mean: Floats, eigenvalues: Floats, vectors: Floats, k: int
) -> Features:
    """W = L^-1/2 V^T Xc, float32 (k, D), each row's entry of largest magnitude positive."""
    # One product in float32, which is what W is: half the time of float64.
    coefficients = (vectors[:, :k] / np.sqrt(eigenvalues[:k])).T.astype(np.float32)
    components = np.empty((k, features.shape[1]), np.float32)
    # Coefficients add up to 0, so what float32 rounds off the mean cancels.
    rounded = mean.astype(np.float32)
    for start in range(0, features.shape[1], TILE):
        columns = slice(start, min(start + TILE, features.shape[1]))
        tile = columns_of(features, columns, np.float32)
        tile -= rounded[columns]
        components[:, columns] = coefficients @ tile
    components *= signs(components)[:, None]
    return components


def eigh_descending(
    matrix: Floats, most: int | None = None, *, overwrite: bool = False
) -> tuple[Floats, Floats]:
    """Eigenvalues (descending, none below 0) and eigenvectors (in columns) of a Gram matrix.

    All of them, or at least the first ``most``. With ``overwrite`` a large matrix, in either order,
    is used up instead of copied.
    """
    order = len(matrix)
    few = most is not None and order >= max(SOME, 4 * most)
    if order < LARGE and not few:
        eigenvalues, vectors = np.linalg.eigh(matrix)
    else:
        # It is symmetric: its transpose, which lies in the order that LAPACK takes, is the same.
        own = matrix if matrix.flags.f_contiguous else matrix.T
        eigenvalues, vectors = scipy.linalg.eigh(
            own if overwrite else own.copy(order="F"),
            overwrite_a=True,
            check_finite=False,
            driver="evr",
            subset_by_index=(order - most, order - 1) if most is not None and few else None,
        )
    return np.maximum(eigenvalues[::-1], 0.0), vectors[:, ::-1]


def signs(components: Features) -> Features:
    """+1 or -1 for each row, making its entry of largest magnitude positive."""
    largest = np.abs(components).argmax(1)
    return np.where(components[np.arange(len(components)), largest] < 0, -1, 1).astype(np.float32)


def held_out_maps(
    features: Features,
    matrix: Floats,
    shape: FeatureShape,
    folds: Folds,
    rank: Rank,
    shown: Features | None = None,
    cross: Floats | None = None,
) -> Floats:
    """Anomaly map of each image under a PCA fitted without the image's fold.

    Parameters
    ----------
    features
        float32 (N, D), D = C * h * w.
    matrix
        Their Gram matrix, (N, N), centred by the mean of all.
    shape
        (C, h, w).
    folds
        Indices of the images held out together; each image in exactly one fold.
    rank
        Chooses each fold's k, as for the whole.
    shown, cross
        The same images as another backbone sees them, (N, D), which are judged in place of
        ``features``, and their `cross_products` with these, (N, N).

    Returns
    -------
    float64 (N, h, w): M(i,j) = 1/C sum_c e(c,i,j)^2, e = (I - W^T W)(u - mu).
    """
    maps = np.zeros((len(features), shape.height, shape.width))
    cells = shape.height * shape.width
    channels = max(1, min(16, TILE_BYTES // (8 * len(features) * cells)))
    for held_out in folds:
        weights = residual_weights(matrix, held_out, rank, cross)
        for start in range(0, shape.channels, channels):
            columns = slice(start * cells, min(start + channels, shape.channels) * cells)
            errors = weights @ columns_of(features, columns, np.float64)
            if shown is not None:
                errors += shown[held_out, columns]
            errors = errors.reshape(len(held_out), -1, shape.height, shape.width)
            maps[held_out] += np.square(errors, out=errors).sum(1)
    return maps / shape.channels


def residual_weights(
    matrix: Floats, held_out: NDArray[np.int64], rank: Rank, cross: Floats | None = None
) -> Floats:
    """Write the held-out residuals as combinations of all images: e = A X, A of shape (n, N).

    The rows of A sum to zero, so X need not be centred. With ``cross``, the products of other views
    X' of the images with X, e = x' + A X, and the rows sum to -1.
    """
    total = len(matrix)
    train = np.setdiff1d(np.arange(total), held_out)
    inner = matrix[np.ix_(train, train)]
    row_mean = inner.mean(0)
    inner -= row_mean
    inner -= row_mean[:, None]
    inner += row_mean.mean()
    own = cross is None
    across = (matrix if cross is None else cross)[np.ix_(held_out, train)]
    across = across - across.mean(1, keepdims=True) - row_mean + row_mean.mean()

    weights = np.zeros((len(held_out), total))
    weights[:, train] = -1.0 / len(train)  # - mean of the training part
    if own:
        weights[np.arange(len(held_out)), held_out] = 1.0
    if len(train) > 1:
        total_variance = float(np.trace(inner))
        eigenvalues, vectors = eigh_descending(inner, rank.bound, overwrite=True)
        if eigenvalues[0] > 0:
            # n centred rows have rank n - 1 at most
            k = rank.choose(eigenvalues[: len(train) - 1], total_variance)
            basis = vectors[:, :k]
            # projection onto the directions W = L^-1/2 V^T Xc, written in terms of X
            weights[:, train] -= (across @ basis / eigenvalues[:k]) @ basis.T
    return weights
