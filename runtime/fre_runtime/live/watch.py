"""A folder that fills up with photos."""

import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from fre_runtime.errors import CaptureError, FreError
from fre_runtime.files import IMAGE_SUFFIXES
from fre_runtime.image import MAX_PIXELS, read_image
from fre_runtime.sources import Frame

POLL_SECONDS = 0.25
SETTLE_SECONDS = 0.5
"""A file is taken for complete when neither size nor time has changed for so long."""
DAMAGED_SECONDS = 5.0
"""A settled file that cannot be decoded may still be growing; after so long it is damaged."""
REMEMBERED = 20_000
"""So many photos are remembered after they were deleted, and all while the folder is empty."""
SYSTEM_FOLDERS = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})
"""What stands in the root of a disk, hidden or not, and may not be listed by everybody."""

Stamp = tuple[int, int]
"""Size in bytes and time of modification in nanoseconds: equal stamps, equal file."""


@dataclass
class _Seen:
    stamp: Stamp
    since: float
    """Since when the file has had this stamp, by the monotonic clock."""
    done: bool = False


class WatchedFolder:
    """Photos in the order in which they were completed, each once.

    Looks again and again instead of asking the system for changes: that works on network shares,
    too, where most cameras put their photos. A file that is overwritten is a new photo; one that
    is deleted before its turn is left out. Hidden files and links to folders are not followed.
    """

    endless = False
    patient = True

    def __init__(
        self,
        folder: Path,
        *,
        only_new: bool = False,
        max_pixels: int = MAX_PIXELS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder = folder
        self._skip = only_new
        self._max_pixels = max_pixels
        self._clock, self._sleep = clock, sleep
        self._seen: dict[Path, _Seen] = {}
        self.name = str(folder)

    def frames(self) -> Generator[Frame | None]:
        """See `Capture.frames`; None where there is nothing new."""
        number = 0
        while True:
            start = self._clock()
            for path in self._look(start):
                frame = self._read(path, number)
                if frame is not None:
                    number += 1
                    yield frame
            yield None
            # A share with very many files is not listed all the time.
            self._sleep(max(POLL_SECONDS, 2 * (self._clock() - start)))

    def _look(self, now: float) -> list[Path]:
        """Files that have settled, the oldest first."""
        try:
            stamps = dict(_photos(self._folder))
        except OSError as error:
            raise CaptureError(
                f"{self._folder}: cannot be listed ({error.strerror or error})"
            ) from error
        seen = {
            path: old
            if (old := self._seen.get(path)) is not None and old.stamp == stamp
            else _Seen(stamp, now, done=self._skip)
            for path, stamp in stamps.items()
        }
        gone = [path for path, old in self._seen.items() if old.done and path not in stamps]
        # A share that was away for a moment must not bring all its photos again. While it is, it
        # may look like an empty folder: then none is forgotten.
        kept = {path: self._seen[path] for path in (gone[-REMEMBERED:] if stamps else gone)}
        self._seen, self._skip = kept | seen, False
        ready = [p for p, s in seen.items() if not s.done and now - s.since >= SETTLE_SECONDS]
        return sorted(ready, key=lambda path: (stamps[path][1], path))

    def _read(self, path: Path, number: int) -> Frame | None:
        """The photo, or why it cannot be read; None where it has gone or may still grow."""
        seen = self._seen[path]
        start = time.perf_counter()
        try:
            image = read_image(path, self._max_pixels)
        except FreError as error:
            if not path.exists():
                return None
            if self._clock() - seen.since < DAMAGED_SECONDS:
                return None
            seen.done = True
            return Frame(str(path), number, None, str(error))
        if _stamp(path) not in (seen.stamp, None):  # overwritten meanwhile: a new photo
            return None
        seen.done = True
        return Frame(str(path), number, image, decode_ms=(time.perf_counter() - start) * 1e3)


def _photos(folder: Path) -> Iterator[tuple[Path, Stamp]]:
    """All photos below ``folder``; raises OSError where any of it cannot be listed.

    What cannot be seen must not pass for empty.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    yield from _photos(path)
                elif path.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
                    status = entry.stat()
                    yield path, (status.st_size, status.st_mtime_ns)
            except (FileNotFoundError, NotADirectoryError):
                continue  # deleted between listing and looking


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
