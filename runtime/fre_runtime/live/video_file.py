"""A video file as if it were a camera."""

import math
import time
from collections.abc import Callable, Generator
from pathlib import Path

import cv2

from fre_runtime.image import MAX_PIXELS
from fre_runtime.sources import Frame, video_frames

DEFAULT_RATE = 25.0
"""Frames a second where the file gives no sensible rate."""


class VideoFile:
    """A video file, its frames given when they are due; it ends where the file ends."""

    endless = False
    patient = False

    def __init__(
        self,
        path: Path,
        max_pixels: int = MAX_PIXELS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._max_pixels = max_pixels
        self._sleep = sleep
        self.name = str(path)

    def frames(self) -> Generator[Frame | None]:
        """See `Capture.frames`."""
        period = 1 / _frame_rate(self._path)
        due = time.monotonic()
        for frame in video_frames(self._path, self._max_pixels):
            due = max(due, time.monotonic() - period)  # what was late is not made up for
            self._sleep(max(0.0, due - time.monotonic()))
            due += period
            yield frame


def _frame_rate(path: Path) -> float:
    capture = cv2.VideoCapture(str(path))
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate if math.isfinite(rate) and 1 <= rate <= 1000 else DEFAULT_RATE
