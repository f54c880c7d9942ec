"""How sure a quality figure is: intervals from the photos that it was measured on.

Image figures: a stratified bootstrap over photos, good and defective ones drawn separately
(Efron & Tibshirani 1993). Rates at the threshold: Wilson's interval, since the bootstrap of 0
false rejects is 0..0 however few photos there were (Brown, Cai, DasGupta 2001). Pixel figures
resample while they stream; see `fre_runtime.metrics.PixelMetrics`.
"""

from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fre_runtime.metrics import Bools, Floats

CONFIDENCE = 0.95
Z = 1.959963984540054
"""Normal quantile of two-sided `CONFIDENCE`."""
RESAMPLES = 2000
BLOCK = 2_000_000
"""Counts held at a time: memory stays bounded however many photos there are."""


class Interval(NamedTuple):
    """Ends of a two-sided interval at `CONFIDENCE`."""

    low: float
    high: float


def percentile_interval(replicates: Floats) -> Interval:
    """Interval between the outer percentiles of bootstrap replicates, (B,); NaN are left out."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(replicates, [tail, 100 - tail])
    return Interval(float(low), float(high))


def wilson(hits: int, total: int) -> Interval:
    """Wilson's interval of the rate ``hits / total``, ``total`` >= 1."""
    rate = hits / total
    centre = rate + Z**2 / (2 * total)
    spread = Z * sqrt(rate * (1 - rate) / total + Z**2 / (4 * total**2))
    scale = 1 + Z**2 / total
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def image_intervals(scores: Floats, labels: Bools, seed: int = 0) -> dict[str, Interval]:
    """Intervals of image AUROC, average precision and largest F1.

    Parameters
    ----------
    scores
        Score of each photo, (N,); higher is worse.
    labels
        Whether it is defective, (N,).
    seed
        The same seed gives the same intervals.

    Returns
    -------
    By the names of `Evaluation`'s fields; empty with fewer than two photos of either class.
    """
    values, place = np.unique(-scores, return_inverse=True)  # worst first
    good, bad = place[~labels], place[labels]
    if min(len(good), len(bad)) < 2:
        return {}
    random = np.random.default_rng(seed)
    block = max(1, BLOCK // max(len(values), len(good), len(bad)))
    parts = [
        _figures(
            _resampled(good, len(values), count, random),
            _resampled(bad, len(values), count, random),
        )
        for count in (min(block, RESAMPLES - done) for done in range(0, RESAMPLES, block))
    ]
    auroc, precision, f1 = np.concatenate(parts, axis=1)
    return {
        "image_auroc": percentile_interval(auroc),
        "image_ap": percentile_interval(precision),
        "image_f1_max": percentile_interval(f1),
    }


def _resampled(
    place: NDArray[np.int64], values: int, count: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Draw the photos anew ``count`` times: how many lie at each score, (count, values)."""
    drawn = place[random.integers(len(place), size=(count, len(place)))]
    drawn += np.arange(count)[:, None] * values
    return np.bincount(drawn.ravel(), minlength=count * values).reshape(count, values)


def _figures(negatives: NDArray[np.int64], positives: NDArray[np.int64]) -> Floats:
    """AUROC, average precision and largest F1 of each row of counts, worst score first: (3, B)."""
    rejected, found = negatives.cumsum(1), positives.cumsum(1)
    n_good, n_bad = rejected[:, -1], found[:, -1]
    above = n_good[:, None] - rejected + negatives / 2  # good photos that score lower
    auroc = (positives * above).sum(1) / (n_good * n_bad)
    precision = found / np.maximum(found + rejected, 1)
    average_precision = (positives * precision).sum(1) / n_bad
    f1 = (2 * found / (found + rejected + n_bad[:, None])).max(1)
    return np.stack([auroc, average_precision, f1])
