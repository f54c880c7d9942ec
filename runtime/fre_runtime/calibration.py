"""From raw reconstruction errors to scores that mean the same everywhere: 0.5 is the threshold.

The graph computes the calibrated values; this module inverts them and records their constants.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

BELOW_ONE = 1 - 2.0**-25
"""Stands for a calibrated value of 1: float32 tells it and all above it from 1 no more."""


@dataclass(frozen=True)
class Threshold:
    """Constants of one calibrated scale: ``sigmoid((log raw - log value) / spread)``."""

    value: float
    """tau: the raw value that maps to 0.5."""
    spread: float
    """s: how many natural-log units make one unit of the logit."""

    def calibrated(self, raw: Floats) -> NDArray[np.float64]:
        """Map raw values >= 0 to 0..1."""
        with np.errstate(divide="ignore", over="ignore"):
            logit = (np.log(np.asarray(raw, np.float64)) - np.log(self.value)) / self.spread
            return np.asarray(1.0 / (1.0 + np.exp(-logit)))

    def raw(self, calibrated: Floats) -> NDArray[np.float64]:
        """Invert `calibrated`; always finite, but for NaN, which stays NaN.

        Where float32 has rounded to 1, the raw value can be no more than bounded from below.
        """
        p = np.minimum(np.asarray(calibrated, np.float64), BELOW_ONE)
        return np.asarray(self.value * (p / (1 - p)) ** self.spread)

    def resolution(self, calibrated: Floats) -> NDArray[np.float64]:
        """Relative error of `raw` when ``calibrated`` is off by one unit in its last place."""
        p = np.asarray(calibrated, np.float32)
        slope = np.maximum(p, np.finfo(np.float32).tiny) * np.maximum(1 - p, np.spacing(p))
        return np.asarray(self.spread * np.spacing(p) / slope, np.float64)


@dataclass(frozen=True)
class Histogram:
    """Held-out good scores, in bins of equal width of log(raw score)."""

    low: float
    """Raw score at the lower edge of the first bin."""
    high: float
    """Raw score at the upper edge of the last bin."""
    counts: list[float]
    """Scenes in each bin: the photos of one share its one count, as they do in the threshold."""

    def share_above(self, raw: Floats) -> NDArray[np.float64]:
        """Fraction of the held-out good scenes above each raw value: the false-reject rate there.

        Between the edges of a bin they count as spread evenly over log(raw).
        """
        edges = np.linspace(np.log(self.low), np.log(self.high), len(self.counts) + 1)
        below = np.concatenate([[0.0], np.cumsum(self.counts)]) / max(1, sum(self.counts))
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 - np.interp(np.log(np.asarray(raw, np.float64)), edges, below))


@dataclass(frozen=True)
class Calibration:
    """Thresholds from good images alone, at a target false-reject rate."""

    fpr: float
    """The false-reject rate that was asked for."""
    fpr_supported: float
    """The rate the data can promise: never below 1 / (scenes + 1)."""
    folds: int
    """Parts that took turns in being held out; 0 where the model has seen none of the photos."""
    image: Threshold
    pixel: Threshold
    held_out: Histogram
    source: str
    """What the photos were: held-out training photos, or the folder given to fre-calibrate."""
    photos: int
    scenes: int
    """Distinct scenes among them: near-copies count once."""
    date: str
    """Day of the calibration, ISO 8601, UTC."""

    def metadata(self) -> dict[str, str]:
        """The thresholds as key-value pairs in full, for the graph files' own metadata."""
        return {
            "fre_image_threshold": repr(self.image.value),
            "fre_image_spread": repr(self.image.spread),
            "fre_pixel_threshold": repr(self.pixel.value),
            "fre_pixel_spread": repr(self.pixel.spread),
        }
