"""What people see while lines run, and at the end."""

import sys
import threading
import time
from collections.abc import Sequence

from fre_runtime.live.events import Counters, Event
from fre_runtime.live.line import Line
from fre_runtime.live.sinks.json_lines import write_stdout
from fre_runtime.live.sinks.outlet import Outlet
from fre_runtime.progress import Status

SHOW_SECONDS = 0.2


class Console:
    """A line on stdout when a source changes its state or gives another photo.

    Counts and warnings go to stderr. Where the reader of stdout has gone, sets ``stop``.
    """

    def __init__(self, stop: threading.Event, *, quiet: bool, stdout: bool = True) -> None:
        self._stop = stop
        self._quiet = quiet
        self._print = stdout and not quiet
        self._status = Status(quiet=quiet)
        self._last: dict[str, tuple[str, str]] = {}
        self._lines: Sequence[Line] = ()
        self._shown = 0.0
        self._rates: dict[str, _Rate] = {}

    def watch(self, lines: Sequence[Line]) -> None:
        """Show the counters of these."""
        self._lines = lines

    def emit(self, event: Event) -> None:
        """Take one event."""
        now = (event.state, event.source)
        if self._print and self._last.get(event.line) != now:
            self.clear()
            write_stdout(_line(event), self._stop)
        self._last[event.line] = now
        if event.warning and not self._quiet:
            self.clear()
            write_warning(event)
        clock = time.monotonic()
        if clock - self._shown >= SHOW_SECONDS:
            self._shown = clock
            self._status.show(" | ".join(self._counts(line, clock) for line in self._lines))

    def clear(self) -> None:
        """Make room for other lines."""
        self._status.clear()

    def close(self) -> None:
        """Leave nothing half-shown."""
        self.clear()

    def _counts(self, line: Line, clock: float) -> str:
        state, _ = self._last.get(line.name, ("no event yet", ""))
        rate = self._rates.setdefault(line.name, _Rate(clock)).at(line, clock)
        name, c = f"{line.name} " if len(self._lines) > 1 else "", line.counters
        return (
            f"{name}{state}, {rate:.1f}/s, {c.scored} scored, {c.anomalous} anomalous, "
            f"{c.dropped} dropped, {c.failed} failed"
        ) + (", scores drift" if line.drift and line.drift.drifting else "")


def write_warning(event: Event) -> None:
    """Write what the event warns of to stderr."""
    sys.stderr.write(f"warning: {event.line}: {event.warning}\n")
    sys.stderr.flush()


class _Rate:
    """Scored pictures a second, over the last second or more."""

    def __init__(self, clock: float) -> None:
        self._clock, self._scored, self._value = clock, 0, 0.0

    def at(self, line: Line, clock: float) -> float:
        if clock - self._clock >= 1:
            scored = line.counters.scored
            self._value = (scored - self._scored) / (clock - self._clock)
            self._clock, self._scored = clock, scored
        return self._value


def counts(counters: Counters) -> str:
    """The counters in words; they add up once a line has ended."""
    c = counters
    return (
        f"{c.captured} captured = {c.scored} scored ({c.anomalous} anomalous) + "
        f"{c.dropped} dropped + {c.failed} failed"
    ) + (f" + {c.waiting} on their way" if c.waiting else "")


def summary(lines: Sequence[Line], outlets: Sequence[Outlet]) -> list[str]:
    """What has become of every picture and event."""
    told = []
    for line in lines:
        again = f"; opened again {line.reconnects} times" if line.reconnects else ""
        unheard = f"; {line.unheard} events not taken by a sink" if line.unheard else ""
        told.append(f"{line.name}: {counts(line.counters)}{again}{unheard}{_drift(line)}")
    for outlet in outlets:
        lost = f", {outlet.lost} lost" if outlet.lost else ""
        why = f" (last trouble: {outlet.trouble})" if outlet.trouble else ""
        told.append(f"{outlet.name}: {outlet.delivered} delivered{lost}{why}")
    return told


def _drift(line: Line) -> str:
    if line.drift is None:
        return "; not watched for drift"
    if line.alarm is None:
        return "; no drift alarm"
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.alarm.time))
    told = f"drift alarm at {moment}, picture {line.alarm.number}: {line.alarm.warning}"
    over = "" if line.drift.drifting else " (over)"
    return f"; {f'last of {line.alarms} alarms: ' if line.alarms > 1 else ''}{told}{over}"


def _line(event: Event) -> str:
    moment = time.strftime("%H:%M:%S", time.localtime(event.time))
    said = f"{event.score:.3f}" if event.score is not None else "     "
    where = event.line if event.source.endswith(event.line) else f"{event.line} {event.source}"
    return f"{moment} {event.state:<10} {said} {event.error or where}"
