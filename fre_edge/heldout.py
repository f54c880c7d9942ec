"""Errors of images that the subspace has not seen, without a second pass through the backbone.

In-sample residuals are far too small to set a threshold by. For each fold a PCA is fitted on the
other images, in the dual form: everything but the final residual comes out of the Gram matrix.
"""

import numpy as np
from numpy.typing import NDArray

from fre_edge.features import FeatureShape
from fre_edge.subspace import Features, Floats, Rank, eigh_descending

CHANNELS = 16
"""Channels converted to float64 at a time."""


def held_out_maps(
    features: Features,
    matrix: Floats,
    shape: FeatureShape,
    folds: list[NDArray[np.int64]],
    rank: Rank,
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

    Returns
    -------
    float64 (N, h, w): M(i,j) = 1/C sum_c e(c,i,j)^2, e = (I - W^T W)(u - mu).
    """
    maps = np.zeros((len(features), shape.height, shape.width))
    tensor = features.reshape(len(features), *shape)
    for held_out in folds:
        weights = residual_weights(matrix, held_out, rank)
        for start in range(0, shape.channels, CHANNELS):
            tile = tensor[:, start : start + CHANNELS].reshape(len(features), -1)
            errors = (weights @ tile.astype(np.float64)).reshape(
                len(held_out), -1, shape.height, shape.width
            )
            maps[held_out] += np.square(errors).sum(1)
    return maps / shape.channels


def residual_weights(matrix: Floats, held_out: NDArray[np.int64], rank: Rank) -> Floats:
    """Write the held-out residuals as combinations of all images: e = A X, A of shape (n, N).

    The rows of A sum to zero, so X need not be centred.
    """
    total = len(matrix)
    train = np.setdiff1d(np.arange(total), held_out)
    inner = matrix[np.ix_(train, train)]
    row_mean = inner.mean(0)
    centred = inner - row_mean - row_mean[:, None] + row_mean.mean()
    cross = matrix[np.ix_(held_out, train)]
    cross = cross - cross.mean(1, keepdims=True) - row_mean + row_mean.mean()

    weights = np.zeros((len(held_out), total))
    weights[:, train] = -1.0 / len(train)  # - mean of the training part
    weights[np.arange(len(held_out)), held_out] = 1.0
    if len(train) > 1:
        eigenvalues, vectors = eigh_descending(centred)
        if eigenvalues[0] > 0:
            k = rank.choose(eigenvalues[:-1])  # n centred rows have rank n - 1 at most
            basis = vectors[:, :k]
            # projection onto the directions W = L^-1/2 V^T Xc, written in terms of X
            weights[:, train] -= (cross @ basis / eigenvalues[:k]) @ basis.T
    return weights
