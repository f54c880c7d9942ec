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


class Status:
    """What is going on now, for work that must not be interrupted to count its progress."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = time.monotonic()

    def show(self, text: str) -> None:
        """Say it: at once on a terminal, in a log when nothing was said for `LOG_SECONDS`."""
        now = time.monotonic()
        if self._terminal:
            sys.stderr.write(f"\r\033[K{text}")
        elif now - self._shown >= LOG_SECONDS:
            self._shown = now
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Make room for a line of the result."""
        if self._terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
