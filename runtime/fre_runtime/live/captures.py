"""Where live pictures come from."""

from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from fre_runtime.errors import UsageError
from fre_runtime.files import VIDEO_SUFFIXES
from fre_runtime.image import MAX_PIXELS
from fre_runtime.live.addresses import STREAMS, check_address, is_stream, shown
from fre_runtime.live.ffmpeg import READ_SECONDS, Camera, FfmpegStream
from fre_runtime.live.http_stream import HttpStream
from fre_runtime.live.video_file import VideoFile
from fre_runtime.live.watch import WatchedFolder
from fre_runtime.sources import Frame


class Capture(Protocol):
    """A source of pictures, read in a thread of its own."""

    name: str
    """What people call it: no password in it."""
    endless: bool
    """A camera or stream: where it ends or falls silent, it is broken and opened again."""
    patient: bool
    """Its pictures wait for the scorer (photos in a folder); others give way to newer ones."""

    def frames(self) -> Generator[Frame | None]:
        """Open it and yield its pictures; may be called again after it has ended or failed.

        None says that it is alive but has nothing new.

        Raises
        ------
        CaptureError
            When it cannot be opened, or breaks off.
        """
        ...


def open_capture(
    source: str,
    *,
    watch: bool = False,
    only_new: bool = False,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    silence: float = READ_SECONDS,
) -> Capture:
    """The capture that ``source`` means; nothing is opened yet.

    Parameters
    ----------
    source
        ``camera:0``, ``rtsp://...``, ``http(s)://...``, a video file (paced as it was recorded)
        or, with ``watch``, a folder that fills up.
    watch
        Take ``source`` for such a folder.
    only_new
        Leave out the photos that are in it already.
    threads
        Threads that may decode a stream; default: FFmpeg's own choice.
    max_pixels
        Larger pictures are invalid; photos and MJPEG are refused from their header.
    silence
        Seconds for which a stream may send nothing, if more than `READ_SECONDS`.

    Raises
    ------
    UsageError
        When it means none of them.
    """
    path = Path(source)
    if watch:
        if not path.is_dir():
            raise UsageError(f"{shown(source)}: is no folder; --watch takes a folder that fills up")
        return WatchedFolder(path, only_new=only_new, max_pixels=max_pixels)
    if source.startswith("camera:"):
        index = source.removeprefix("camera:")
        if not (index.isascii() and index.isdigit() and len(index) < 4):
            raise UsageError(f"{source}: a camera has a number, as in camera:0")
        return Camera(int(index), max_pixels)
    if is_stream(source):
        if check_address(source, STREAMS).scheme.startswith("http"):
            return HttpStream(source, threads, max_pixels, silence)
        return FfmpegStream(source, shown(source), threads, max_pixels, silence)
    if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoFile(path, max_pixels)
    raise UsageError(
        f"{shown(source)}: is no live source; give camera:0, an address that begins with "
        f"{', '.join(f'{scheme}://' for scheme in STREAMS)}, a video file, or a folder to watch"
    )
