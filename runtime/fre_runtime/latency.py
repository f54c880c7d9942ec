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
    """Repeat ``call`` until two windows in a row have medians within 3%, at most 5 s."""
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


def measure_pair(
    ours: Callable[[], object], theirs: Callable[[], object], seconds: float
) -> tuple[Measurement, Measurement]:
    """Alternate two calls, so that both see the same drift of the machine's speed.

    They alternate in short blocks, since a call right after another model's finds cold caches.
    """
    warm_up(ours)
    warm_up(theirs)
    times: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    turn = 0
    while time.perf_counter() - start < seconds or len(times[1]) < MIN_FRAMES:
        first = turn % 2  # who begins alternates too
        for side in (first, 1 - first):
            call = (ours, theirs)[side]
            call()
            times[side].extend(_timed(call) for _ in range(PAIR_BLOCK))
        turn += 1
    a, b = (np.array(side) for side in times)
    return Measurement(a, a.sum() / 1e3), Measurement(b, b.sum() / 1e3)


PAIR_BLOCK = 5
"""Calls of one side before the other's turn; one more before them is not counted."""


def paired_ratio(ours: Measurement, theirs: Measurement, seed: int = 0) -> dict[str, float]:
    """Median over blocks of our time over theirs, with a 95% bootstrap interval.

    A value of 0.8 means that ours takes 0.8 of their time.
    """
    blocks = [np.median(m.milliseconds.reshape(-1, PAIR_BLOCK), axis=1) for m in (ours, theirs)]
    ratios = blocks[0] / blocks[1]
    draws = np.random.default_rng(seed).integers(len(ratios), size=(1000, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
