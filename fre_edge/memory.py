"""How much memory and disk there is, asked before it is needed."""

import shutil
from pathlib import Path

from fre_runtime.errors import MemoryLimitError, OutputError
from fre_runtime.threads import own_cgroups

SHARE = 0.8
"""Part of the free memory that a fit may plan with; the rest is for what nobody counts."""


def free_memory() -> int | None:
    """Bytes that can still be taken: the system's and the control group's; None if unknown."""
    limits = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    except (OSError, ValueError, IndexError):
        pass
    for group in own_cgroups():
        try:
            limit = (group / "memory.max").read_text().strip()
            used = int((group / "memory.current").read_text())
            # The page cache counts as used, but gives way.
            cache = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit != "max":
            limits.append(max(0, int(limit) - used + int(cache.get("file", 0))))
    return min(limits, default=None)


def check_memory(needed: int, what: str, instead: str) -> None:
    """Raise `MemoryLimitError` where ``needed`` bytes are more than a fit may plan with."""
    free = free_memory()
    if free is not None and needed > SHARE * free:
        raise MemoryLimitError(
            f"{what} needs {in_gb(needed)} of memory, {in_gb(free)} are free and a fit plans with "
            f"{SHARE:.0%} of that; {instead}"
        )


def check_disk(folder: Path, needed: int, what: str) -> None:
    """Raise `OutputError` where ``needed`` bytes do not fit on the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder}: {what} needs {in_gb(needed)}, {in_gb(free)} are free there; make room or "
            "give a folder on another disk"
        )


def in_gb(size: float) -> str:
    """A size for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e7 else f"{size / 1e6:.2f} MB"
