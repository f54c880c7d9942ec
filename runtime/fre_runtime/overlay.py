"""Pictures of results: the heat map over the photo, on a scale that is the same for every image."""

import cv2
import numpy as np

from fre_runtime.image import Image, resize
from fre_runtime.result import Result

RED = (230, 40, 40)
GREEN = (60, 200, 90)
ORANGE = (240, 150, 20)

LARGEST = 16_000_000
"""Pixels of the largest picture that is drawn."""


COLOURS = {"good": GREEN, "anomalous": RED, "invalid": ORANGE, "stale": ORANGE}


def overlay(image: Image, result: Result, caption: str | None = None) -> Image:
    """Draw heat map, mask outline and score over a uint8 (H, W, 3) photo of ``result``.

    Small photos are enlarged so that the score stays readable, and those over `LARGEST` pixels are
    shrunk to that: the drawing takes several times a picture's memory. ``caption`` stands in for
    the score and state above the picture.
    """
    text = "invalid" if result.state == "invalid" else f"{result.score:.3f} {result.state}"
    return _under(caption or text, tinted(_sized(image), result), result.state)


def tinted(image: Image, result: Result) -> Image:
    """Lay heat map and mask outline of ``result`` over its uint8 (H, W, 3) photo, of any size.

    The colours follow the calibrated map, never the image's own minimum and maximum: a good part
    looks calm. The map is lifted to the size of ``image`` only, so pictures of large photos are
    cheap when they are small.
    """
    heat = np.nan_to_num(result.map_at(image.shape[0], image.shape[1]))
    colours = cv2.cvtColor(
        cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB
    )
    # Nothing is tinted below a third of the scale; from the threshold up half the colour shows.
    alpha = np.clip((heat - 1 / 3) * 6, 0, 1)[..., None] * 0.5
    canvas = (image * (1 - alpha) + colours * alpha).astype(np.uint8)
    contours, _ = cv2.findContours(
        (heat > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(canvas, contours, -1, RED, 2, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def captioned(image: Image, caption: str, state: str) -> Image:
    """A uint8 (H, W, 3) photo without a result, under a bar in the colour of ``state``."""
    return _under(caption, _sized(image), state)


def _sized(image: Image) -> Image:
    pixels = image.shape[0] * image.shape[1]
    if pixels > LARGEST:
        scale = (LARGEST / pixels) ** 0.5
        return resize(image, *(max(1, int(side * scale)) for side in image.shape[:2]))
    scale = max(1, round(320 / max(image.shape[:2])))
    enlarged = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return np.asarray(enlarged, np.uint8)


def _under(text: str, canvas: Image, state: str) -> Image:
    height = 26
    bar = np.full((height, canvas.shape[1], 3), 24, np.uint8)
    bar[:, :6] = COLOURS[state]
    cv2.putText(bar, text, (12, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.48, (235,) * 3, 1, cv2.LINE_AA)
    return np.vstack([bar, canvas])
