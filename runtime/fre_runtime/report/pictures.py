"""Small pictures inside the page: JPEG thumbnails as data URIs, of bounded size."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fre_runtime.detector import Detector
from fre_runtime.errors import ImageError
from fre_runtime.image import Image, read_image, read_mask, resize
from fre_runtime.overlay import tinted
from fre_runtime.result import Result

SIDE = 288
"""Pixels of a thumbnail's longer side."""
MAX_BYTES = 18_000
"""Of one thumbnail: noisy photos are stored at lower quality instead of making the page large."""
QUALITIES = (82, 65, 45, 25, 10)
CYAN = (0, 220, 255)


@dataclass(frozen=True)
class Picture:
    """A photo, and its heat map over it."""

    photo: str
    """Data URI."""
    heat: str | None
    """Data URI; None where only the photo is shown."""


@dataclass(frozen=True)
class Shown:
    """A photo in a gallery."""

    name: str
    score: float
    """Calibrated."""
    state: str
    is_defective: bool
    picture: Picture | None
    """None when the photo could not be read again."""

    @property
    def verdict(self) -> str:
        """What the score means for a photo of this label."""
        if self.is_defective:
            return "missed" if self.state == "good" else "detected"
        return "passed" if self.state == "good" else "rejected"


def photo_picture(path: Path, max_pixels: int) -> Picture | None:
    """The photo alone; None when it cannot be read any more."""
    try:
        return Picture(_data_uri(_thumbnail(read_image(path, max_pixels))), None)
    except ImageError:
        return None


def scored_picture(detector: Detector, path: Path, mask: Path | None) -> Picture | None:
    """The photo with its labelled defect outlined, and its heat map; None when it cannot be read.

    The photo is read and scored again: a data set's pictures would not fit in memory.
    """
    try:
        image = read_image(path, detector.max_pixels)
        result = detector(image)
        truth = None if mask is None else read_mask(mask, detector.max_pixels)
    except ImageError:
        return None
    small = _thumbnail(image)
    heat = tinted(small, result)
    return Picture(_data_uri(small if truth is None else _outlined(small, truth)), _data_uri(heat))


def colour_scale() -> str:
    """What the heat map does to grey, from 0 at the left to 1 at the right: a data URI."""
    height, width = 16, 360
    grey = np.full((height, width, 3), 150, np.uint8)
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    return _data_uri(tinted(grey, Result(0.0, 0.0, "good", (height, width), ramp)))


def _thumbnail(image: Image) -> Image:
    scale = SIDE / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return resize(image, height, width)


def _outlined(image: Image, mask: np.ndarray) -> Image:
    """Outline a defect of (H, W) on a photo of another size."""
    canvas = image.copy()
    # Any part of a small defect that falls into a pixel counts, so that none vanishes.
    coverage = cv2.resize(
        mask.astype(np.float32), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_AREA
    )
    contours, _ = cv2.findContours(
        (coverage > 0).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(canvas, contours, -1, CYAN, 1, cv2.LINE_AA)
    return canvas


def _data_uri(image: Image) -> str:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    for quality in QUALITIES:
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= MAX_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(bytes(data)).decode("ascii")
