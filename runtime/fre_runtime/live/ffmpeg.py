"""Cameras of this machine and network streams, read through OpenCV."""

from collections.abc import Generator

import cv2

from fre_runtime.errors import CaptureError, ImageError
from fre_runtime.image import MAX_PIXELS, to_rgb
from fre_runtime.sources import Frame

OPEN_SECONDS = 10.0
READ_SECONDS = 5.0
"""After so long a silent server is given up, so that no thread stays behind; later where the line
is more patient."""


class Camera:
    """A camera of this machine."""

    endless = True
    patient = False

    def __init__(self, index: int, max_pixels: int = MAX_PIXELS) -> None:
        self._index = index
        self._max_pixels = max_pixels
        self.name = f"camera:{index}"

    def frames(self) -> Generator[Frame | None]:
        """See `Capture.frames`; a picture of an unknown pixel type becomes an error."""
        capture = cv2.VideoCapture(self._index)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # what is buffered is old
        return _read(capture, self.name, self._max_pixels)


class FfmpegStream:
    """A network stream that FFmpeg opens: RTSP, or video over HTTP."""

    endless = True
    patient = False

    def __init__(
        self,
        address: str,
        name: str,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        silence: float = READ_SECONDS,
    ) -> None:
        self._address = address
        self._threads = threads
        self._max_pixels = max_pixels
        self._silence = max(silence, READ_SECONDS)
        self.name = name

    def frames(self) -> Generator[Frame | None]:
        """See `Capture.frames`; a picture of an unknown pixel type becomes an error."""
        options = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: int(OPEN_SECONDS * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: int(self._silence * 1000),
        }
        if self._threads:
            options[cv2.CAP_PROP_N_THREADS] = self._threads
        flat = [value for pair in options.items() for value in pair]
        capture = cv2.VideoCapture(self._address, cv2.CAP_FFMPEG, flat)
        return _read(capture, self.name, self._max_pixels)


def _read(capture: cv2.VideoCapture, name: str, max_pixels: int) -> Generator[Frame]:
    number = 0
    try:
        if not capture.isOpened():
            raise CaptureError(f"{name}: cannot be opened, or does not answer")
        while True:
            ok, picture = capture.read()
            if not ok:
                break
            try:
                frame = Frame(name, number, to_rgb(picture, max_pixels))
            except ImageError as error:
                frame = Frame(name, number, None, f"{name}: {error}")
            yield frame
            number += 1
    except cv2.error as error:
        raise CaptureError(f"{name}: cannot be read ({error.err})") from error
    finally:
        capture.release()
    raise CaptureError(f"{name}: broke off after {number} frames")
