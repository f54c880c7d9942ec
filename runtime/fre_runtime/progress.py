"""Progress of long work on stderr: one changing line for people, a line now and then for logs."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

LOG_SECONDS = 15.0
"""Seconds between lines where stderr is not a terminal."""


def track(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Yield ``items`` and show how many of ``total`` are done, with the time left."""
    terminal = sys.stderr.isatty()
    start = shown = time.monotonic()
    done = 0
    try:
        for item in items:
            yield item
            done += 1
            now = time.monotonic()
            if now - shown >= (0.1 if terminal else LOG_SECONDS):
                shown = now
                left = (now - start) / done * (total - done)
                line = f"{label}: {done}/{total}, {left:.0f} s left"
                sys.stderr.write(f"\r\033[K{line}" if terminal else f"{line}\n")
                sys.stderr.flush()
    finally:
        if terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
