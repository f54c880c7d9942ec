"""Whether the camera still sees what the thresholds were made for: a sequential test of its scores.

Lamps age, lenses get dusty, a camera is knocked: the scores of good parts move long before they
reach the threshold. A `DriftWatch` compares the live scores, one after the other, with two
references, and gives alarm as soon as chance cannot explain them:

* the held-out scores that the thresholds rest on. Those of an export come from models fitted
  without a fifth of the photos, and so lie a little high: there only a rise counts. Those of
  fre-calibrate come from the model itself: a fall counts too;
* the first scores of this camera, `DriftOptions.warm_up` of them. Whatever the held-out scores are
  worth, later ones should be like these; a rise counts, and a fall.

How often a score lies beyond a reference's median, quarter and tenth is known in advance: half the
time, and so on. Each of these shares is watched by a sequential test. It multiplies its evidence by
``e = q1 / q0`` where a score lies beyond the quantile and by ``(1 - q1) / (1 - q0)`` where not: q0
is the largest share that is no drift, q1 a share that would be one. While there is no drift, the
mean of e is at most 1 whatever came before, so that the sum over all possible beginnings,
``M <- (M + 1) e``, stays below its limit for as many scores, on average, as the limit says
(Shiryaev-Roberts as an e-detector: Shin, Ramdas, Rinaldo, New England Journal of Statistics in Data
Science 2024). The watch averages M over all tests, which keeps that promise.

q0 is the nominal share plus what defects may add, plus what the reference does not know: its
quantiles come from a limited number of parts.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fre_runtime.calibration import Calibration, Histogram
from fre_runtime.errors import UsageError

Direction = Literal["higher", "lower"]
Floats = NDArray[np.float64]

SHARES = (0.5, 0.25, 0.1)
"""Nominal shares beyond the quantiles that are watched."""
STRENGTHS = (0.2, 0.4, 0.6, 0.9)
"""How far between q0 and 1 the shares q1 lie that the tests look for."""
Z = 3.0
"""Standard deviations by which a reference's quantile may be wrong."""
FEWEST = 20
"""Parts in the calibration below which nothing can be said."""
KEPT = 10.0
"""Evidence that each test keeps, in units of what an alarm takes from it alone: the more it kept,
the longer an alarm would outlast its cause."""
MEMORY = 100
"""Scores over which the recent share is averaged."""
ADVICE = (
    "look after the light, the lens and the camera's position; if good parts are to look as they "
    "do now, calibrate on new photos of them: fre-calibrate MODEL GOOD_PHOTOS --out NEW"
)
"""What to do after an alarm."""
RECOVERED = "the scores are again what chance explains"
"""Why an alarm is over."""


@dataclass(frozen=True)
class DriftOptions:
    """When to give alarm."""

    false_alarm_every: float = 100_000.0
    """Mean number of scores between two false alarms, at least."""
    defects: float = 0.05
    """Largest share of defective parts that is no drift."""
    warm_up: int = 200
    """Scores at the beginning that later ones are compared with; 0: none."""
    every: int = 1
    """Use one of so many scores: that many frames show the same part."""
    recovery: int = 200
    """An alarm ends when the evidence was below what it takes for so many scores in a row; 0: it
    stays until `DriftWatch.reset`."""

    def check(self) -> None:
        """Raise `UsageError` for a value out of range."""
        if not self.false_alarm_every > 1:
            raise UsageError(f"false_alarm_every must be above 1, got {self.false_alarm_every}")
        if not 0 <= self.defects < 0.5:
            raise UsageError(f"defects must lie in 0..0.5, got {self.defects}")
        if self.warm_up and not self.warm_up >= FEWEST:
            raise UsageError(f"warm_up must be 0 or at least {FEWEST}, got {self.warm_up}")
        if self.every < 1:
            raise UsageError(f"every must be at least 1, got {self.every}")
        if self.recovery < 0:
            raise UsageError(f"recovery must be at least 0, got {self.recovery}")


@dataclass(frozen=True)
class DriftState:
    """What the watch says after a score."""

    drifting: bool
    """Alarm was given, and it is not over yet; see `DriftOptions.recovery`."""
    direction: Direction | None
    """Where the scores went; None without an alarm."""
    evidence: float
    """Share of the evidence that an alarm takes, 0..1; it falls again where drift does."""
    above_median: float
    """Share of the latest `MEMORY` scores above the median of the camera's first scores, or of the
    held-out ones until it is warm; about 0.5 where nothing drifts."""
    scores: int
    """Scores that were used since the start or the last reset."""


class DriftWatch:
    """Watches the scores of one camera; not for several threads at once.

    Parameters
    ----------
    calibration
        Of the variant that runs.
    options
        When to give alarm.

    Raises
    ------
    UsageError
        When an option is out of range, or the calibration rests on fewer than `FEWEST` parts.

    Examples
    --------
    >>> watch = DriftWatch(detector.card.variants["fp32"].calibration)  # doctest: +SKIP
    >>> watch.update(detector(photo).raw_score).drifting                # doctest: +SKIP
    """

    def __init__(self, calibration: Calibration, options: DriftOptions | None = None) -> None:
        self.options = options or DriftOptions()
        self.options.check()
        if calibration.scenes < FEWEST:
            raise UsageError(
                f"the thresholds rest on {calibration.scenes} different parts, drift can be told "
                f"from {FEWEST} on; calibrate on more photos with fre-calibrate"
            )
        self._alarm = 2 * self.options.false_alarm_every  # half for each reference
        shares = np.array(SHARES)
        known = upper_bound(shares, calibration.scenes)
        # Defects score high: against good parts alone they push scores up only.
        no_drift = [known + self.options.defects * (1 - known), known]
        self._held_out = _Reference(
            quantiles(calibration.held_out, 1 - shares),
            quantiles(calibration.held_out, shares),
            np.stack(no_drift if calibration.folds == 0 else no_drift[:1]),
            self._alarm,
        )
        self.reset()

    def reset(self) -> None:
        """Start anew: the cause was found, or the model calibrated again."""
        self._held_out.reset()
        self._live: _Reference | None = None
        self._first: list[float] = []
        self._offered = self._scores = 0
        self._above_median = 0.5
        self._evidence = 0.0
        self._direction: Direction | None = None
        self._calm = 0

    @property
    def state(self) -> DriftState:
        """What the scores so far say."""
        return DriftState(
            drifting=self._direction is not None,
            direction=self._direction,
            evidence=min(1.0, self._evidence),
            above_median=self._above_median,
            scores=self._scores,
        )

    def update(self, raw_score: float) -> DriftState:
        """Take the raw score of the next part, good or bad; one that is no number is passed over.

        Takes microseconds.
        """
        if not np.isfinite(raw_score):
            return self.state
        self._offered += 1
        if (self._offered - 1) % self.options.every:
            return self.state
        self._scores += 1
        median = (self._live or self._held_out).median
        # A plain mean at first, an exponential one from MEMORY scores on.
        step = 1 / min(self._scores, MEMORY)
        self._above_median += step * (float(raw_score > median) - self._above_median)
        evidence = self._held_out.update(raw_score)
        if self._live is not None:
            evidence = evidence + self._live.update(raw_score)
        elif self.options.warm_up and self._direction is None:
            self._warm_up(raw_score)
        evidence = evidence / self._alarm
        self._evidence = float(evidence.sum())
        if self._evidence >= 1:
            self._calm = 0
            self._first = []  # what drifts is nothing to compare later scores with
            self._direction = self._direction or (
                "higher" if evidence[0] >= evidence[1] else "lower"
            )
        elif self._direction is not None:
            self._calm += 1
            if self._calm == self.options.recovery:
                self._direction = None
        return self.state

    def _warm_up(self, raw_score: float) -> None:
        self._first.append(raw_score)
        if len(self._first) < self.options.warm_up:
            return
        shares = np.array(SHARES)
        # Both shares of defects, then and now, are unknown, so they may shift either side.
        known = upper_bound(shares, len(self._first))
        no_drift = known + self.options.defects * (1 - known)
        self._live = _Reference(
            np.quantile(self._first, 1 - shares),
            np.quantile(self._first, shares),
            np.stack([no_drift, no_drift]),
            self._alarm,
        )
        self._first = []
        self._above_median = 0.5


class _Reference:
    """The tests against one reference: by direction (upwards, downwards), share and strength.

    Parameters
    ----------
    upper, lower
        Raw scores beyond which `SHARES` of the reference's scores lie, (3,).
    no_drift
        q0, the largest shares that are no drift, (directions, 3).
    alarm
        Evidence, as the mean over the tests, that an alarm takes.
    """

    def __init__(self, upper: Floats, lower: Floats, no_drift: Floats, alarm: float) -> None:
        self.median = float(upper[0])
        self._upper, self._lower = upper, lower
        self._directions = len(no_drift)
        q0 = no_drift[..., None]
        q1 = q0 + (1 - q0) * np.array(STRENGTHS)
        self._beyond, self._within = q1 / q0, (1 - q1) / (1 - q0)
        self._most = KEPT * alarm * self._beyond.size
        self.reset()

    def reset(self) -> None:
        self._evidence = np.zeros(self._beyond.shape)

    def update(self, raw_score: float) -> Floats:
        """Evidence for a rise and for a fall, (2,); their sum is the mean over the tests."""
        beyond = np.stack([raw_score > self._upper, raw_score < self._lower][: self._directions])
        factor = np.where(beyond[..., None], self._beyond, self._within)
        self._evidence = np.minimum((self._evidence + 1) * factor, self._most)
        both = np.zeros(2)
        both[: self._directions] = self._evidence.mean((1, 2)) / self._directions
        return both


def quantiles(held_out: Histogram, shares: Floats) -> Floats:
    """Raw scores below which ``shares`` of the held-out scores lie.

    Inside a bin its scores count as spread evenly over log(raw).
    """
    edges = np.linspace(np.log(held_out.low), np.log(held_out.high), len(held_out.counts) + 1)
    below = np.concatenate([[0.0], np.cumsum(held_out.counts)]) / max(1, sum(held_out.counts))
    return np.exp(np.interp(shares, below, edges))


def upper_bound(shares: Floats, count: int) -> Floats:
    """How large the shares may really be whose quantiles come from ``count`` parts (Wilson)."""
    z = Z * Z / count
    middle = shares + z / 2
    return np.asarray((middle + np.sqrt(z * (shares * (1 - shares) + z / 4))) / (1 + z))
