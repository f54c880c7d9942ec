"""Reading a source in a thread that may be left behind."""

import contextlib
import threading
import time
from collections.abc import Callable

from fre_runtime.errors import FreError
from fre_runtime.live.captures import Capture
from fre_runtime.sources import Frame


class Reader:
    """One attempt to read a source: opens it, hands its pictures on, until it ends or is left.

    A driver or a resolver may hang where no time limit reaches it; then the thread is left behind
    and the next attempt gets one of its own.
    """

    def __init__(self, capture: Capture, take: Callable[[Frame, Callable[[], bool]], None]) -> None:
        self.frames = 0
        self.trouble: str | None = None
        """Why it ended; None where the source had simply no more pictures."""
        self._capture, self._take = capture, take
        self._heard = time.monotonic()
        self._left = False
        self._ended = threading.Event()
        name = f"read {capture.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs, wanted or not."""
        return self._thread.is_alive()

    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._heard

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for the end; whether it has come."""
        return self._ended.wait(timeout)

    def leave(self) -> None:
        """Take no further picture; the thread ends as soon as the source lets it."""
        self._left = True

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds for the thread."""
        self._thread.join(timeout)

    def _is_left(self) -> bool:
        return self._left

    def _run(self) -> None:
        try:
            with contextlib.closing(self._capture.frames()) as frames:
                for frame in frames:
                    self._heard = time.monotonic()
                    if self._left:
                        break
                    if frame is not None:
                        self.frames += 1
                        self._take(frame, self._is_left)
        except FreError as error:
            self.trouble = str(error)
        except Exception as error:  # drivers and decoders raise what they like
            self.trouble = f"{self._capture.name}: {type(error).__name__}: {error}"
        finally:
            self._ended.set()
