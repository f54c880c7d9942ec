"""One JSON object a line, appended to a file or written to stdout."""

import io
import os
import sys
import threading
from pathlib import Path

from fre_runtime.errors import OutputError
from fre_runtime.live.events import Event
from fre_runtime.live.record import encode


class JsonLines:
    """Appends to a file; on a full disk a line is lost whole, never written in part.

    Raises
    ------
    OutputError
        When the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = io.FileIO(path, "a")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error

    def emit(self, event: Event) -> None:
        """Append one line; raises OSError where it cannot be written."""
        data = encode(event) + b"\n"
        end = os.fstat(self._file.fileno()).st_size
        written = self._file.write(data) or 0
        if written < len(data):
            os.ftruncate(self._file.fileno(), end)
            raise OSError(f"only {written} of {len(data)} bytes could be written")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class StdoutLines:
    """Writes to stdout; where its reader has gone, sets ``stop``."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def emit(self, event: Event) -> None:
        """Write one line."""
        write_stdout(encode(event).decode(), self._stop)

    def close(self) -> None:
        """Nothing to close."""


def write_stdout(line: str, stop: threading.Event) -> None:
    """Write a line to stdout; where its reader has gone, set ``stop``, then raise."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        stop.set()
        raise
