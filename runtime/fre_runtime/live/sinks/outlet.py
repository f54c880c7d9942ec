"""What stands between the lines and a sink: a thread, a bounded buffer, retries, and a count."""

import threading
import time
from collections import deque
from dataclasses import replace

from fre_runtime.errors import FreError
from fre_runtime.live.backoff import Backoff
from fre_runtime.live.events import Event, Sink, State

ALL: frozenset[State] = frozenset({"good", "anomalous", "invalid", "stale"})
ALARMS: frozenset[State] = ALL - {"good"}
BUFFER = 1000
"""Events without their pictures that wait for a server."""
PICTURES = 16
"""Events that wait with their pictures: those take megabytes each, ..."""
PICTURE_BYTES = 256 << 20
"""... or hundreds of them: no further one waits while those that do take so much."""
PATIENCE_SECONDS = 1.0
"""So long a line waits once for a full buffer of pictures, then only after it was emptied."""
CLOSE_SECONDS = 5.0
"""So long the end may take; what is not delivered by then is lost."""


class Undeliverable(FreError, ValueError):
    """The receiver refuses this event; trying again would not help."""


class Outlet:
    """Delivers events to one sink in a thread of its own, in order.

    The lines never wait for it, except for a moment where a disk is slower than the model. Where
    the buffer is full, the oldest event is lost; all that is lost is counted.

    Parameters
    ----------
    sink
        Where events go; it is called from one thread only.
    name
        What the summary calls it; no password in it.
    states
        Events of other states are left out, but not a warning where no pictures are wanted.
    pictures
        Whether the sink wants the pictures and maps.
    retry
        Whether an event that could not be delivered is tried again, until it is pushed out.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        *,
        states: frozenset[State] = ALL,
        pictures: bool = False,
        retry: bool = False,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = name
        self.delivered = 0
        self.lost = 0
        self.trouble: str | None = None
        """Why the last event that failed did so."""
        self._sink, self._states, self._pictures, self._retry = sink, states, pictures, retry
        self._backoff = backoff or Backoff()
        self._size = PICTURES if pictures else BUFFER
        self._buffer: deque[Event] = deque()
        self._busy = False
        self._slow = False
        self._closing = False
        self._deadline = float("inf")
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)
        self._thread.start()

    def emit(self, event: Event) -> None:
        """Take an event; see the class."""
        told = event.warning is not None and not self._pictures
        if event.state not in self._states and not told:
            return
        if not self._pictures:
            event = replace(event, image=None, result=None)
        with self._changed:
            if self._pictures and not self._slow:
                self._slow = not self._changed.wait_for(self._has_room, PATIENCE_SECONDS)
            while self._buffer and not self._has_room():
                self._buffer.popleft()
                self.lost += 1
            self._buffer.append(event)
            self._changed.notify_all()

    def finish(self) -> None:
        """Begin to close: what waits gets one attempt each, none begins after `CLOSE_SECONDS`."""
        with self._changed:
            self._closing = True
            self._deadline = min(self._deadline, time.monotonic() + CLOSE_SECONDS)
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until that is done; what could not be delivered is counted as lost."""
        self.finish()
        self._thread.join(max(0.0, self._deadline - time.monotonic()) + 1)
        with self._changed:
            self.lost += self.waiting
            self._buffer.clear()
            self._busy = False

    @property
    def waiting(self) -> int:
        """Events that are still to be delivered."""
        return len(self._buffer) + int(self._busy)

    def _has_room(self) -> bool:
        if not self._pictures:
            return len(self._buffer) < self._size
        held = sum(event.image.nbytes for event in self._buffer if event.image is not None)
        return len(self._buffer) < self._size and held < PICTURE_BYTES

    def _run(self) -> None:
        while (event := self._next()) is not None:
            done = self._deliver(event)
            with self._changed:
                if self._busy:  # else it was counted as lost at the end
                    self.delivered += int(done)
                    self.lost += int(not done)
                self._busy = False
                self._slow = self._slow and bool(self._buffer)
                self._changed.notify_all()
        try:
            self._sink.close()
        except Exception as error:
            self.trouble = _text(error)

    def _next(self) -> Event | None:
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self._closing)
            if not self._buffer or time.monotonic() > self._deadline:
                return None
            self._busy = True
            return self._buffer.popleft()

    def _deliver(self, event: Event) -> bool:
        while True:
            try:
                self._sink.emit(event)
            except Exception as error:  # a sink may fail in any way; the line goes on
                self.trouble = _text(error)
                if not self._retry or isinstance(error, Undeliverable):
                    return False
            else:
                self._backoff.reset()
                return True
            with self._changed:
                pushed_out = self._changed.wait_for(
                    lambda: self._closing or not self._has_room(), self._backoff.next()
                )
            if pushed_out:  # the oldest event is this one
                return False


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def close_all(outlets: list[Outlet]) -> None:
    """Close them side by side, so that all together take no longer than one."""
    for outlet in outlets:
        outlet.finish()
    for outlet in outlets:
        outlet.close()
