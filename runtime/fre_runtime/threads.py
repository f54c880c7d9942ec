"""How many threads an engine may use here."""

import math
import os
from pathlib import Path

V1_FOLDER = Path("/sys/fs/cgroup/cpu")
"""Where version 1 of control groups keeps the CPU quota."""


def default_threads() -> int:
    """min(CPU affinity, ceil(cgroup CPU quota), physical cores), at least 1.

    Engines look at the number of cores only, and so oversubscribe a container with a CPU quota.
    """
    limits = [len(available_cpus()), physical_cores()]
    quota = cpu_quota()
    if quota is not None:
        limits.append(math.ceil(quota))
    return max(1, min(limits))


def available_cpus() -> set[int]:
    """Numbers of the CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """CPUs that the control group (v2, else v1) may use, or None where nothing limits it."""
    quotas = []
    for base in own_cgroups():
        try:
            quota, period = (base / "cpu.max").read_text().split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            quotas.append(int(quota) / int(period))
    if quotas:
        return min(quotas)
    try:
        quota_us = int((V1_FOLDER / "cpu.cfs_quota_us").read_text())
        period_us = int((V1_FOLDER / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota_us / period_us if quota_us > 0 else None


def own_cgroups() -> list[Path]:
    """The group of this process and all above it: each of them may set a quota."""
    root = Path("/sys/fs/cgroup")
    try:
        own = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return [root]
    own_groups = [root / line[3:].lstrip("/") for line in own if line.startswith("0::")]
    return [
        group for own in own_groups for group in (own, *own.parents) if root in group.parents
    ] + [root]


def physical_cores() -> int:
    """Cores that do not share execution units, from sysfs; all CPUs where it does not tell."""
    return len(cores())


def cores() -> list[set[int]]:
    """The CPUs that this process may run on, those of one physical core together."""
    found: dict[str, set[int]] = {}
    for cpu in sorted(available_cpus()):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            siblings = (topology / "thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(cpu)
        found.setdefault(siblings, set()).add(cpu)
    return list(found.values())


def share_of_cpus(part: int, parts: int) -> set[int]:
    """The CPUs of process number ``part`` of ``parts`` that work side by side.

    Whole cores, no more in all than `default_threads`; where there are more processes than cores,
    some share one.
    """
    every = cores()
    first = part * len(every) // parts
    return set().union(*every[first : first + max(1, default_threads() // parts)])
