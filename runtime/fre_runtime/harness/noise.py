"""Whether the machine was quiet enough for a figure to be believed.

Linux tells in /proc what else ran. Where a file is missing, as on other systems and in some
containers, the numbers that need it are None, and nothing is said of them.
"""

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fre_runtime.threads import available_cpus

PROC = Path("/proc")
CPUFREQ = Path("/sys/devices/system/cpu")

LIMITS = {
    "spread": 0.2,
    "drift": 0.05,
    "steal": 0.02,
    "others": 0.1,
    "clock_change": 0.1,
}
"""Largest value of each number of `noise` that passes without a warning."""

MEANING = {
    "spread": "interquartile range over median of the latencies",
    "drift": "medians of the two halves of the run differ by",
    "steal": "CPU time that the hypervisor withheld",
    "others": "CPU time that other processes took",
    "clock_change": "CPU clock changed by",
}


@dataclass(frozen=True)
class Snapshot:
    """What the machine said at one moment; differences of two describe the time between."""

    seconds: float
    """`time.perf_counter`."""
    own_cpu: float
    """CPU seconds of this process, all its threads."""
    cpu: tuple[float, float, float] | None
    """CPU seconds since boot on the CPUs that we may use: all, busy (steal excluded), stolen."""
    mhz: float | None
    """Mean clock of those CPUs."""


def snapshot(proc: Path = PROC, cpufreq: Path = CPUFREQ) -> Snapshot:
    """Read the counters; takes well under a millisecond or two."""
    cpus = available_cpus()
    return Snapshot(
        seconds=time.perf_counter(),
        own_cpu=time.process_time(),
        cpu=_cpu_seconds(proc / "stat", cpus),
        mhz=_clock(proc / "cpuinfo", cpufreq, cpus),
    )


def noise(times: NDArray[np.float64], before: Snapshot, after: Snapshot) -> dict[str, float | None]:
    """How noisy one run was.

    Parameters
    ----------
    times
        Latencies in the order in which the calls began, (frames,).
    before, after
        Taken right before and after these calls.

    Returns
    -------
    ``spread``
        Interquartile range of the latencies over their median.
    ``drift``
        Relative difference of the medians of the first and second half of the run.
    ``steal``
        Share of CPU time that the hypervisor gave to others, 0..1.
    ``others``
        Share of CPU time that other processes took on the CPUs that we may use, 0..1.
    ``clock_change``
        Relative change of the mean clock from begin to end.
    """
    quarter, median, three = np.percentile(times, [25, 50, 75])
    half = len(times) // 2
    first, second = float(np.median(times[:half])), float(np.median(times[half:]))
    steal, others = _shares(before, after)
    return {
        "spread": float((three - quarter) / median),
        "drift": abs(second - first) / min(first, second),
        "steal": steal,
        "others": others,
        "clock_change": _clock_change(before.mhz, after.mhz),
    }


def exceeded(found: dict[str, float | None], ignore: Sequence[str] = ()) -> list[str]:
    """Names of the numbers over their limit."""
    return [
        name
        for name, limit in LIMITS.items()
        if name not in ignore and (value := found.get(name)) is not None and value > limit
    ]


def warning(runs: Sequence[dict[str, float | None]], names: Sequence[str]) -> str | None:
    """One line on all ``runs`` of a report, with the worst of each of ``names``; None if quiet."""
    parts = []
    for name in LIMITS:
        if name in names:
            worst = max(value for run in runs if (value := run[name]) is not None)
            parts.append(f"{MEANING[name]} {worst:.0%} (limit {LIMITS[name]:.0%})")
    if not parts:
        return None
    return f"warning: noisy machine, the figures may not repeat: {'; '.join(parts)}"


def _shares(before: Snapshot, after: Snapshot) -> tuple[float | None, float | None]:
    if before.cpu is None or after.cpu is None:
        return None, None
    total, busy, stolen = (b - a for a, b in zip(before.cpu, after.cpu, strict=True))
    if total <= 0:  # the counters tick 100 times a second
        return None, None
    own = after.own_cpu - before.own_cpu
    return max(0.0, stolen / total), min(1.0, max(0.0, (busy - own) / total))


def _clock_change(before: float | None, after: float | None) -> float | None:
    if not before or not after:
        return None
    return abs(after - before) / max(before, after)


def _cpu_seconds(path: Path, cpus: set[int]) -> tuple[float, float, float] | None:
    total = busy = stolen = 0.0
    try:
        tick = os.sysconf("SC_CLK_TCK")
        for line in path.read_text().splitlines():
            name, *fields = line.split()
            number = re.fullmatch(r"cpu(\d+)", name)
            if number is None or int(number[1]) not in cpus:
                continue
            # user nice system idle iowait irq softirq steal; guest time is part of user
            ticks = [int(field) / tick for field in fields[:8]]
            idle = ticks[3] + ticks[4]
            total += sum(ticks)
            stolen += ticks[7]
            busy += sum(ticks) - idle - ticks[7]
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return (total, busy, stolen) if total else None


def _clock(cpuinfo: Path, cpufreq: Path, cpus: set[int]) -> float | None:
    """Mean MHz: of cpufreq where there is such a thing (kHz), else of /proc/cpuinfo."""
    try:
        scaled = [
            int((cpufreq / f"cpu{cpu}" / "cpufreq" / "scaling_cur_freq").read_text()) / 1e3
            for cpu in cpus
        ]
        return sum(scaled) / len(scaled)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    try:
        found = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", cpuinfo.read_text(), re.MULTILINE)
        return sum(map(float, found)) / len(found)
    except (OSError, ValueError, ZeroDivisionError):
        return None
