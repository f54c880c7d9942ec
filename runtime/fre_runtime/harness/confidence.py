"""How many frames a percentile needs, and how well a sample knows one; no distribution assumed."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

QUANTILE = 0.9
"""The tail that MLPerf's single-stream scenario reports."""
MARGIN = 0.02
CONFIDENCE = 0.99
INTERVAL_CONFIDENCE = 0.95


def minimum_frames(
    quantile: float = QUANTILE, margin: float = MARGIN, confidence: float = CONFIDENCE
) -> int:
    """Frames after which a sample quantile is known to within ``margin`` of its rank.

    Of n independent frames, the share that is faster than the true ``quantile`` q has the standard
    deviation sqrt(q (1 - q) / n). It stays within ``margin`` with probability ``confidence`` when

        n >= z^2 q (1 - q) / margin^2,    z = Phi^-1((1 + confidence) / 2),

    which is the appendix "Number of Queries" of the MLPerf inference rules. The defaults (the
    sample's 90th percentile lies between the true 88th and 92nd with 99% confidence) give 1493
    frames; MLPerf's own margin of 0.005 gives 23886, which it rounds up to 24576.

    Parameters
    ----------
    quantile, margin, confidence
        Fractions in 0..1, exclusive; ``margin`` counts ranks, not milliseconds.
    """
    return math.ceil(_z(confidence) ** 2 * quantile * (1 - quantile) / margin**2)


def margin_of(frames: int, quantile: float = QUANTILE, confidence: float = CONFIDENCE) -> float:
    """The margin in rank that so many frames give: `minimum_frames` solved for it."""
    return _z(confidence) * math.sqrt(quantile * (1 - quantile) / frames)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def quantile_interval(
    times: NDArray[np.float64], quantile: float = 0.5, confidence: float = INTERVAL_CONFIDENCE
) -> tuple[float | None, float | None]:
    """Exact confidence interval of a quantile from order statistics.

    The number of frames below the true quantile q is binomial(n, q) whatever the distribution, so
    the l-th and u-th smallest times enclose it with probability P(l <= B < u). Each tail gets at
    most (1 - confidence) / 2: the coverage is at least ``confidence``, for independent frames. A
    machine that drifts breaks that independence and makes the interval too narrow.

    Parameters
    ----------
    times
        (n,), any order.

    Returns
    -------
    Low and high in the unit of ``times``; None for an end that n frames cannot bound.
    """
    low, high = interval_ranks(len(times), quantile, confidence)
    ordered = np.sort(times)
    return (
        float(ordered[low - 1]) if low >= 1 else None,
        float(ordered[high - 1]) if high <= len(times) else None,
    )


def interval_ranks(n: int, quantile: float, confidence: float) -> tuple[int, int]:
    """Ranks, from 1, of the two ends; 0 and n + 1 where ``n`` frames are too few."""
    below = np.cumsum(_binomial(n, quantile))  # P(B <= i)
    tail = (1 - confidence) / 2
    low = int(np.searchsorted(below, tail, side="right"))  # the largest l with P(B < l) <= tail
    above = np.cumsum(_binomial(n, 1 - quantile))  # P(B >= n - i), summed from its small end
    high = n + 1 - int(np.searchsorted(above, tail, side="right"))
    return low, high


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """P(B = i) for i in 0..n, through logarithms: n may be 100,000."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    i = np.arange(n + 1)
    log_choose = log_factorial[n] - log_factorial - log_factorial[::-1]
    return np.asarray(np.exp(log_choose + i * np.log(p) + (n - i) * np.log1p(-p)), np.float64)
