"""The latency harness: how long one call takes, and how many finish in a second."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_FRAMES = 30
"""Fewer calls than this say nothing about a 95th percentile."""

WARM_UP_WINDOW = 10
WARM_UP_SECONDS = 5.0


@dataclass(frozen=True)
class Measurement:
    """Times of single calls, and the rate at which they finished."""

    milliseconds: NDArray[np.float64]
    """Wall time of each call, (frames,)."""
    seconds: float
    """Wall time of the whole run."""

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


def warm_up(call: Callable[[], object]) -> None:
    """Repeat ``call`` until two windows in a row have medians within 3%, or for about 5 s."""
    end = time.perf_counter() + WARM_UP_SECONDS
    previous = np.inf
    while time.perf_counter() < end:
        median = float(np.median([_timed(call) for _ in range(WARM_UP_WINDOW)]))
        if abs(median - previous) <= 0.03 * previous:
            return
        previous = median


def measure_latency(call: Callable[[], object], seconds: float) -> Measurement:
    """Call one after the other for ``seconds``, and at least `MIN_FRAMES` times."""
    warm_up(call)
    times: list[float] = []
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < MIN_FRAMES:
        times.append(_timed(call))
    return Measurement(np.array(times), time.perf_counter() - start)


def measure_throughput(call: Callable[[], object], seconds: float, parallel: int) -> Measurement:
    """Keep ``parallel`` calls in flight for ``seconds``."""
    warm_up(call)
    start = time.perf_counter()
    end = start + seconds

    def worker() -> list[float]:
        times: list[float] = []
        while time.perf_counter() < end or len(times) < MIN_FRAMES / parallel:
            times.append(_timed(call))
        return times

    with ThreadPoolExecutor(parallel) as pool:
        runs = [pool.submit(worker) for _ in range(parallel)]
        times = [t for run in runs for t in run.result()]
    return Measurement(np.array(times), time.perf_counter() - start)


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


def measure_pair(ours: Callable[[], object], theirs: Callable[[], object], seconds: float) -> Pair:
    """Alternate two calls, so that both see the same drift of the machine's speed.

    They alternate in blocks of `PAIR_BLOCK`, since a call right after another model's finds cold
    caches; who begins alternates too.
    """
    calls = (ours, theirs)
    for call in calls:
        warm_up(call)
    turns: tuple[list[list[float]], list[list[float]]] = ([], [])
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(turns[0]) * PAIR_BLOCK < MIN_FRAMES:
        first = len(turns[0]) % 2
        for side in (first, 1 - first):
            calls[side]()
            turns[side].append([_timed(calls[side]) for _ in range(PAIR_BLOCK)])
    a, b = (np.array(side) for side in turns)
    return Pair(
        ours=Measurement(a.ravel(), a.sum() / 1e3),
        theirs=Measurement(b.ravel(), b.sum() / 1e3),
        ratio=_bootstrap(np.median(a, axis=1) / np.median(b, axis=1)),
    )


def _bootstrap(ratios: NDArray[np.float64]) -> dict[str, float]:
    draws = np.random.default_rng(0).integers(len(ratios), size=(1000, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
