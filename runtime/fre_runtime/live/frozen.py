"""Noticing that a camera keeps sending one and the same picture."""

import numpy as np

from fre_runtime.image import Image

STEP = 16
"""Every so many rows and columns are compared first: noise shows there already."""


class FrozenPicture:
    """How long the picture has not changed in a single pixel.

    A sensor's noise changes every frame, so equal pictures mean that a camera, an encoder or a
    relay repeats an old one. Only equality counts: a still scene is not frozen.
    """

    def __init__(self) -> None:
        self._last: Image | None = None
        self._since = 0.0

    def seconds(self, image: Image, now: float) -> float:
        """Seconds by the clock of ``now`` for which ``image`` has been the picture."""
        if self._last is None or not _equal(self._last, image):
            self._since = now
        self._last = image
        return now - self._since


def _equal(a: Image, b: Image) -> bool:
    if a is b or a.shape != b.shape:
        return a is b
    return np.array_equal(a[::STEP, ::STEP], b[::STEP, ::STEP]) and np.array_equal(a, b)
