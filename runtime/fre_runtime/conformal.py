"""Thresholds from held-out good images alone, at a target false-reject rate."""

import datetime
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from fre_runtime.calibration import Calibration, Histogram, Threshold
from fre_runtime.groups import Groups

Floats = NDArray[np.float64]

SPREAD = 1.0
"""s of the calibrated scales: score = S / (S + tau).

The robust spread of log S over good parts (0.2 to 0.4 as measured) would be the natural unit, but
float32 cannot tell sigmoid(x) from 1 far above x = 16: at such a spread all clearly bad parts would
tie at 1.0 and their raw scores be lost. At 1 the raw score can be recovered to 1e-4 up to 1000
times the threshold.
"""

BINS = 40


@dataclass(frozen=True)
class Quantile:
    """A finite-sample quantile, and the rate that it can promise."""

    value: float
    fpr: float


def conformal_quantile(values: Floats, groups: Groups, fpr: float) -> Quantile:
    """The threshold that a photo of a new good scene exceeds with a probability of about ``fpr``.

    Split-conformal quantile (Vovk et al. 2005; for groups Dunn, Wasserman, Ramdas 2022): each of
    the G groups has the weight 1/G, shared by its images, and the level is
    ceil((G + 1)(1 - fpr)) / G. Where that exceeds 1, G supports no better rate than 1 / (G + 1),
    and the largest value is returned.
    """
    count = len(np.unique(groups))
    rank = ceil((count + 1) * (1.0 - fpr) - 1e-9)
    if rank > count:
        return Quantile(float(values.max()), 1.0 / (count + 1))
    sizes = np.bincount(groups)[groups]
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(1.0 / sizes[order])
    index = int(np.searchsorted(cumulative, rank - 1e-9))
    return Quantile(float(values[order[min(index, len(order) - 1)]]), fpr)


def calibrate(
    scores: Floats, maxima: Floats, groups: Groups, fpr: float, folds: int, source: str
) -> Calibration:
    """Calibrate the image score and the map.

    Parameters
    ----------
    scores
        Held-out scores S of good images, (N,).
    maxima
        Largest held-out M(i, j) of each image, (N,).
    groups
        Group of each image, (N,).
    fpr
        Target false-reject rate, in (0, 1).
    folds
        Parts that took turns in being held out; 0 where the model has seen none of the images.
    source
        What the images are.
    """
    image = conformal_quantile(scores, groups, fpr)
    pixel = conformal_quantile(maxima, groups, fpr)
    return Calibration(
        fpr=fpr,
        fpr_supported=image.fpr,
        folds=folds,
        image=Threshold(image.value, SPREAD),
        pixel=Threshold(pixel.value, SPREAD),
        held_out=_histogram(scores, groups),
        source=source,
        photos=len(scores),
        scenes=len(np.unique(groups)),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _histogram(scores: Floats, groups: Groups) -> Histogram:
    logs = np.log(np.maximum(scores, np.finfo(np.float32).tiny))
    low, high = float(logs.min()), float(logs.max())
    weights = 1.0 / np.bincount(groups)[groups]
    counts = np.histogram(logs, BINS, (low, max(high, low + 1e-6)), weights=weights)[0]
    return Histogram(float(np.exp(low)), float(np.exp(high)), [round(float(c), 6) for c in counts])
