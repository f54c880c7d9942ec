"""Progress of long work on stderr: one changing line for people, a line now and then for logs."""

import importlib.util
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

LOG_SECONDS = 15.0
"""Seconds between lines where stderr is not a terminal."""


def track(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    """Yield ``items`` and show how many of ``total`` are done, with the time left.

    People see a bar where the package rich is installed, else a changing line; logs a line every
    `LOG_SECONDS`.
    """
    if not sys.stderr.isatty():
        return _logged(items, total, label)
    if importlib.util.find_spec("rich") is None:
        return _counted(items, total, label)
    return _bar(items, total, label)


def _bar(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # results may go to a file
        redirect_stderr=False,
    ) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            yield item
            progress.advance(task)


def _counted(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    status = Status()
    try:
        for item, line in _lines(items, total, label, 0.1):
            if line:
                status.show(line)
            yield item
    finally:
        status.clear()


def _logged(items: Iterable[T], total: int | None, label: str) -> Iterator[T]:
    for item, line in _lines(items, total, label, LOG_SECONDS):
        if line:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        yield item


def _lines(
    items: Iterable[T], total: int | None, label: str, period: float
) -> Iterator[tuple[T, str | None]]:
    """Each item, with a line about those before it where ``period`` seconds have passed."""
    start = shown = time.monotonic()
    for done, item in enumerate(items):
        now, line = time.monotonic(), None
        if done and now - shown >= period:
            shown, line = now, f"{label}: {done}"
            if total is not None:
                line += f"/{total}, {(now - start) / done * (total - done):.0f} s left"
        yield item, line


class Status:
    """What is going on now, for work that must not be interrupted to count its progress."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty() and not quiet
        self._shown = time.monotonic()

    def show(self, text: str) -> None:
        """Say it: at once on a terminal, in a log when nothing was said for `LOG_SECONDS`."""
        now = time.monotonic()
        if self._quiet:
            return
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1  # a second row could not be wiped out
            sys.stderr.write(f"\r\033[K{text[:width]}")
        elif now - self._shown >= LOG_SECONDS:
            self._shown = now
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Make room for a line of the result."""
        if self._terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
