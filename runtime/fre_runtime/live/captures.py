"""Where live pictures come from."""

from collections.abc import Iterator
from typing import Protocol

from fre_runtime.sources import Frame


class Capture(Protocol):
    """A source of pictures, read in a thread of its own."""

    name: str
    """What people call it: no password in it."""
    endless: bool
    """A camera or stream: where it ends or falls silent, it is broken and opened again."""
    patient: bool
    """Its pictures wait for the scorer (photos in a folder); others give way to newer ones."""

    def frames(self) -> Iterator[Frame]:
        """Open it and yield its pictures; may be called again after it has ended or failed.

        Raises
        ------
        CaptureError
            When it cannot be opened, or breaks off.
        """
        ...


def open_capture(source: str, *, watch: bool = False, only_new: bool = False) -> Capture:
    """The capture that ``source`` means; nothing is opened yet.

    ``camera:0``, ``rtsp://...``, ``http(s)://...``, a video file (paced as recorded) or, with
    ``watch``, a folder that fills up.

    Raises
    ------
    UsageError
        When it means none of them.
    """
    raise NotImplementedError
