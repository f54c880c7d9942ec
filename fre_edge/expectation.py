"""What error to expect of a good photo like this one.

Good photos differ in how well they can be reconstructed: one of high contrast, or one that lies far
out along the main directions of the good ones, leaves a larger error and is no worse for it. So
score and map are taken relative to

    E = clip(c, c_min, c_max) / c_0 * exp(b . t)

with the photo's own contrast c = sqrt(mean_cij (u - mean_ij u)^2) in the first layer's features u,
and t, its first coordinates there in units of their standard deviation over good photos, clipped.
c_0 is the median of c over good photos, c_max the largest: glare or noise beyond what good photos
show is a reason to reject, not an excuse, so E has an upper limit. b comes from held-out errors of
good photos by ridge regression: no defect is needed. This is ours, not the paper's;
``benchmarks/quality`` tells what it is worth.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fre_edge.features import FeatureShape
from fre_edge.strategies.base import BATCH, Features, Floats, Subspace, release

COORDINATES = 5
"""More of them fit the good photos at hand, and mislead on those of other parts."""
CLIP = 2.5
"""Standard deviations beyond which a coordinate says no more: a defect must not excuse itself."""
BLANK = 0.1
"""c_min / c_0: what has less contrast than that is blank."""


class Expectation(NamedTuple):
    """The constants of E; see the module."""

    contrast: float
    """c_0; 0 = features without spread, which have no contrast to go by."""
    most: float
    """c_max / c_0."""
    deviations: tuple[float, ...]
    """Standard deviation of each coordinate; empty where coordinates are not used."""
    weights: tuple[float, ...]
    """b, one for each."""


class Looks(NamedTuple):
    """What E goes by, of each photo."""

    contrasts: Floats
    """c, (n,)."""
    coordinates: Floats
    """Along the first directions, (n, at most `COORDINATES`)."""


def look(features: Features, shape: FeatureShape, subspaces: Sequence[Subspace]) -> Looks:
    """Contrast and coordinates of the first layer's features.

    Parameters
    ----------
    features
        float32 (n, D).
    shape
        Of one photo's.
    subspaces
        Those of the layer. Coordinates are taken of a single one with one code for each photo.
    """
    directions = np.empty((0, shape.dimension), np.float32)
    if has_coordinates(subspaces, shape):
        directions = subspaces[0].components[:COORDINATES]
    contrasts, coordinates = [], []
    for start in range(0, len(features), BATCH):
        rows = features[start : start + BATCH].astype(np.float64)
        if len(directions):
            coordinates.append((rows - subspaces[0].mean) @ directions.T)
        tensor = rows.reshape(len(rows), shape.channels, -1)
        spread = tensor - tensor.mean(2, keepdims=True)
        contrasts.append(np.sqrt(np.square(spread).mean((1, 2))))
        release(features)
    return Looks(
        np.concatenate(contrasts),
        np.concatenate(coordinates) if coordinates else np.empty((len(features), 0)),
    )


def has_coordinates(subspaces: Sequence[Subspace], shape: FeatureShape) -> bool:
    """Whether a layer's code is one vector a photo, along directions sorted by variance."""
    first = subspaces[0]
    return len(subspaces) == 1 and first.decoder is None and len(first.mean) == shape.dimension


def fit_expectation(
    scores: Floats, looks: Looks, folds: NDArray[np.int64], scenes: int
) -> tuple[Expectation, Floats]:
    """Learn E from held-out scores of good photos.

    Parameters
    ----------
    scores
        S, (n,).
    looks
        Of the same photos.
    folds
        Fold of each photo, (n,).
    scenes
        Distinct scenes among them; the fewer, the less is believed.

    Returns
    -------
    The constants, and E of each photo (n,) by constants that were learned without its fold, so that
    thresholds stay honest.
    """
    deviations = tuple(looks.coordinates.std(0).tolist())
    t = _clipped(looks.coordinates, deviations)
    contrast = float(np.median(looks.contrasts))
    by_contrast = np.ones(len(scores))
    if contrast:
        by_contrast = np.maximum(looks.contrasts / contrast, BLANK)
    y = np.log(np.maximum(scores, np.finfo(np.float32).tiny)) - np.log(by_contrast)
    expected = np.empty(len(scores))
    for fold in np.unique(folds):
        out = folds == fold
        others = by_contrast[~out] if not out.all() else by_contrast
        expected[out] = np.minimum(by_contrast[out], others.max())
        expected[out] *= np.exp(t[out] @ _ridge(t[~out], y[~out], scenes))
    weights = tuple(_ridge(t, y, scenes).tolist())
    return Expectation(contrast, float(by_contrast.max()), deviations, weights), expected


def _clipped(coordinates: Floats, deviations: Sequence[float]) -> Floats:
    return np.clip(coordinates * _inverse(deviations), -CLIP, CLIP)


def _inverse(deviations: Sequence[float]) -> Floats:
    """1 / x, and 0 for 0: a coordinate that does not vary says nothing."""
    return np.array([1 / x if x else 0.0 for x in deviations])


def _ridge(t: Floats, y: Floats, scenes: int) -> Floats:
    """b, halved by a penalty as heavy as the photos; less where they show few scenes."""
    if not len(y):
        return np.zeros(t.shape[1])
    penalty = len(y) * (1 + 20 / scenes)
    found: Floats = np.linalg.solve(t.T @ t + penalty * np.eye(t.shape[1]), t.T @ (y - y.mean()))
    return found


class Expected(nn.Module):
    """E of a photo, in the graph.

    Parameters
    ----------
    expectation
        The constants.
    units
        Coordinate of each unit of the first layer's code, (k,).
    """

    units: Tensor
    weights: Tensor

    def __init__(self, expectation: Expectation, units: Tensor) -> None:
        super().__init__()
        inverse = torch.from_numpy(_inverse(expectation.deviations))
        self.contrast, self.most = expectation.contrast, expectation.most
        self.has_coordinates = len(inverse) > 0
        # Zeros for the coordinates that do not count: cheaper than to cut them out of the code.
        others = (0, len(units) - len(inverse))
        scales = (units[: len(inverse)].double() * inverse).float()
        self.register_buffer("units", F.pad(scales, others))
        weights = torch.tensor(expectation.weights, dtype=torch.float32)
        self.register_buffer("weights", F.pad(weights, others).reshape(-1, 1))

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """From the first layer's features u (N, C, h, w) and code (N, k) to E, (N, 1)."""
        expected = features.new_ones(features.shape[0], 1)
        norm = 1.0  # of the spread, where c is c_0
        if self.contrast:
            norm = self.contrast * math.sqrt(math.prod(features.shape[1:]))
            spread = features - features.mean((2, 3), keepdim=True)
            found = torch.linalg.vector_norm(spread, dim=(1, 2, 3))
            expected = found.clamp(BLANK * norm, self.most * norm).reshape(-1, 1)
        if not self.has_coordinates:
            return expected / norm
        t = (code * self.units).clamp(-CLIP, CLIP)
        offset = code.new_full((1,), -math.log(norm))
        return expected * torch.addmm(offset, t, self.weights).exp()
