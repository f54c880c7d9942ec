"""The latency harness: how long one call takes, and how many finish in a second.

A call that returns a mapping (such as ``Result.timings``) tells the milliseconds of its stages.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fre_runtime.harness.confidence import (
    CONFIDENCE,
    INTERVAL_CONFIDENCE,
    QUANTILE,
    margin_of,
    minimum_frames,
    quantile_interval,
)
from fre_runtime.harness.noise import Snapshot, noise, snapshot

MIN_FRAMES = 30
"""Measured whatever the time limit says: fewer give no percentile and no interval at all."""

WARM_UP_WINDOW = 10
WARM_UP_SECONDS = 5.0

Call = Callable[[], object]
Stages = Mapping[str, float]
Timed = tuple[float, Stages | None]


@dataclass(frozen=True)
class Budget:
    """How long to measure: both ``seconds`` and ``frames`` have to be reached."""

    seconds: float
    frames: int = field(default_factory=minimum_frames)
    cap: float = 60.0
    """Seconds after which ``frames`` are given up; below ``seconds`` it has no effect."""

    def goes_on(self, start: float, done: int) -> bool:
        """Whether another call is due, ``done`` after ``start`` (`time.perf_counter`)."""
        elapsed = time.perf_counter() - start
        if elapsed < self.seconds or done < MIN_FRAMES:
            return True
        return done < self.frames and elapsed < self.cap


@dataclass(frozen=True)
class Measurement:
    """Times of single calls, and the rate at which they finished."""

    milliseconds: NDArray[np.float64]
    """Wall time of each call in the order in which they began, (frames,)."""
    seconds: float
    """Wall time of the whole run."""
    stages: Sequence[Stages] = ()
    """Milliseconds of the stages of each call, where calls tell."""
    machine: tuple[Snapshot, Snapshot] | None = None
    """Before and after."""

    @property
    def fps(self) -> float:
        """Frames finished a second."""
        return len(self.milliseconds) / self.seconds

    def latency(self) -> dict[str, float]:
        """Mean, median, percentiles and maximum, in milliseconds."""
        times = self.milliseconds
        p90, p95, p99 = np.percentile(times, [90, 95, 99])
        return {
            "mean": float(times.mean()),
            "median": float(np.median(times)),
            "p90": float(p90),
            "p95": float(p95),
            "p99": float(p99),
            "max": float(times.max()),
        }

    def intervals(self) -> dict[str, object]:
        """Exact 95% confidence intervals [low, high] of median, p90 and p99, in milliseconds.

        An end is None where the frames are too few for it; see `quantile_interval`.
        """
        quantiles = {"median": 0.5, "p90": 0.9, "p99": 0.99}
        bounds = {
            name: list(quantile_interval(self.milliseconds, q)) for name, q in quantiles.items()
        }
        return {"confidence": INTERVAL_CONFIDENCE, **bounds}

    def stage_medians(self) -> dict[str, float] | None:
        """Median milliseconds of each stage, or None where calls do not tell."""
        if not self.stages:
            return None
        return {
            name: float(np.median([stages[name] for stages in self.stages]))
            for name in self.stages[0]
        }

    def noise(self) -> dict[str, float | None] | None:
        """How noisy the machine was, see `fre_runtime.harness.noise.noise`."""
        return noise(self.milliseconds, *self.machine) if self.machine else None

    def samples(self, budget: Budget) -> dict[str, object]:
        """Whether there are the frames that ``budget`` asked for, and what that promises."""
        return {
            "wanted": budget.frames,
            "reached": len(self.milliseconds) >= budget.frames,
            "quantile": QUANTILE,
            "margin": margin_of(len(self.milliseconds)),
            "confidence": CONFIDENCE,
        }


def warm_up(call: Call) -> None:
    """Repeat ``call`` until two windows in a row have medians within 3%, or for about 5 s."""
    end = time.perf_counter() + WARM_UP_SECONDS
    previous = np.inf
    while time.perf_counter() < end:
        median = float(np.median([_timed(call)[0] for _ in range(WARM_UP_WINDOW)]))
        if abs(median - previous) <= 0.03 * previous:
            return
        previous = median


def measure_latency(call: Call, budget: Budget) -> Measurement:
    """Call one after the other."""
    warm_up(call)
    timed: list[Timed] = []
    before = snapshot()
    start = time.perf_counter()
    while budget.goes_on(start, len(timed)):
        timed.append(_timed(call))
    seconds = time.perf_counter() - start
    return _measurement(timed, seconds, (before, snapshot()))


def measure_throughput(call: Call, budget: Budget, parallel: int) -> Measurement:
    """Keep ``parallel`` calls in flight, each in a thread of its own."""
    warm_up(call)
    before = snapshot()
    start = time.perf_counter()

    def worker() -> list[tuple[float, Timed]]:
        timed: list[tuple[float, Timed]] = []
        while budget.goes_on(start, len(timed) * parallel):
            timed.append((time.perf_counter(), _timed(call)))
        return timed

    with ThreadPoolExecutor(parallel) as pool:
        runs = [pool.submit(worker) for _ in range(parallel)]
        began = [one for run in runs for one in run.result()]
    seconds = time.perf_counter() - start
    began.sort(key=lambda one: one[0])  # all callers in one order of time
    return _measurement([one for _, one in began], seconds, (before, snapshot()))


def measure_stream(
    stream: Callable[[Iterator[None]], Iterable[Stages]], call: Call, budget: Budget
) -> Measurement:
    """Feed a pipeline that works on several frames at a time, as fast as it takes them.

    ``stream`` takes one tick a frame and gives the frame's stages back; the time of a frame is
    their sum, so waiting for its turn is not part of it. ``call`` does one frame, for warming up.
    """
    warm_up(call)
    before = snapshot()
    start = time.perf_counter()

    def ticks() -> Iterator[None]:
        given = 0
        while budget.goes_on(start, given):
            yield None
            given += 1

    timed: list[Timed] = [(sum(stages.values()), stages) for stages in stream(ticks())]
    seconds = time.perf_counter() - start
    return _measurement(timed, seconds, (before, snapshot()))


PAIR_BLOCK = 5
"""Calls of one side before the other's turn; one more before them is not counted."""


@dataclass(frozen=True)
class Pair:
    """Two calls measured in turn."""

    ours: Measurement
    theirs: Measurement
    ratio: dict[str, float]
    """Our time over theirs: ``median`` over the turns, and ``low``, ``high`` of a 95% bootstrap
    interval of that median. 0.8 means that ours takes 0.8 of their time."""


def measure_pair(ours: Call, theirs: Call, budget: Budget) -> Pair:
    """Alternate two calls, so that both see the same drift of the machine's speed.

    They alternate in blocks of `PAIR_BLOCK`, since a call right after another model's finds cold
    caches; who begins alternates too. ``budget`` holds for both together in time, for each in
    frames.
    """
    calls = (ours, theirs)
    for call in calls:
        warm_up(call)
    timed: tuple[list[Timed], list[Timed]] = ([], [])
    before = snapshot()
    start = time.perf_counter()
    while budget.goes_on(start, len(timed[0])):
        first = len(timed[0]) // PAIR_BLOCK % 2
        for side in (first, 1 - first):
            calls[side]()
            timed[side].extend([_timed(calls[side]) for _ in range(PAIR_BLOCK)])
    machine = (before, snapshot())
    a, b = (_measurement(side, sum(ms for ms, _ in side) / 1e3, machine) for side in timed)
    return Pair(a, b, ratio_of(a.milliseconds, b.milliseconds))


def ratio_of(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> dict[str, float]:
    """`Pair.ratio` of two calls' times (frames,), taken in turns of `PAIR_BLOCK`."""
    turns = [np.median(times.reshape(-1, PAIR_BLOCK), axis=1) for times in (ours, theirs)]
    return bootstrap(turns[0] / turns[1])


def bootstrap(ratios: NDArray[np.float64]) -> dict[str, float]:
    """Median of ``ratios`` (turns,) with ``low`` and ``high`` of its 95% bootstrap interval."""
    draws = np.random.default_rng(0).integers(len(ratios), size=(1000, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def _timed(call: Call) -> Timed:
    """Milliseconds of one call, and those of its stages if it tells."""
    start = time.perf_counter()
    said = call()
    return (time.perf_counter() - start) * 1e3, said if isinstance(said, Mapping) else None


def _measurement(
    timed: Sequence[Timed], seconds: float, machine: tuple[Snapshot, Snapshot]
) -> Measurement:
    stages = [said for _, said in timed if said is not None]
    return Measurement(np.array([ms for ms, _ in timed], np.float64), seconds, stages, machine)
