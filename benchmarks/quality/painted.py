"""Good photos with a defect painted on: what a choice can go by where nobody has defective ones.

Four simple kinds, drawn by seed: darker, brighter, a piece of the same photo put elsewhere, grain.
They look like no real defect; all that is asked of them is to stand out from the part around them.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fre_runtime.image import Image, read_image, resize

Floats = NDArray[np.float64]
AREA = (0.0008, 0.03)
"""Least and largest area of a defect, as a fraction of the photo's."""
KNOTS = 12
"""Waves of a defect's outline come from so many random values a side."""


def paint_all(photos: Sequence[Path], size: tuple[int, int], folder: Path) -> list[Path]:
    """Paint each of ``photos``, brought to ``size`` (height, width), into a PNG in ``folder``."""
    painted = []
    for i, photo in enumerate(photos):
        path = folder / f"{i:06}.png"
        image = paint(resize(read_image(photo), *size), np.random.default_rng(i))
        cv2.imwrite(str(path), image[..., ::-1])
        painted.append(path)
    return painted


def paint(image: Image, rng: np.random.Generator) -> Image:
    """A copy of a uint8 (H, W, 3) image with one defect."""
    height, width = image.shape[:2]
    where = blob(height, width, rng)[..., None]
    photo = image.astype(np.float64)
    kind = rng.integers(4)
    if kind == 0:
        photo *= 1 - where * rng.uniform(0.25, 0.7)
    elif kind == 1:
        photo += where * rng.uniform(20, 60)
    elif kind == 2:
        shift = (
            rng.integers(height // 8, height - height // 8),
            rng.integers(width // 8, width - width // 8),
        )
        elsewhere = np.roll(photo, shift, (0, 1))[::-1]
        photo += where * (elsewhere - photo)
    else:
        grain = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), rng.uniform(0.7, 3))
        photo += where * (grain / grain.std())[..., None] * rng.uniform(12, 35)
    return np.asarray(np.clip(photo, 0, 255).round(), np.uint8)


def blob(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Where a defect is: 1 inside a turned ellipse with a wavy outline, 0 outside, (H, W)."""
    area = np.exp(rng.uniform(*np.log(AREA))) * height * width
    stretch = np.exp(rng.uniform(-0.8, 0.8))
    radius = np.sqrt(area / np.pi)
    x, y = rng.uniform(0.1, 0.9, 2) * (width, height)
    angle = rng.uniform(0, np.pi)
    rows, columns = np.mgrid[:height, :width]
    along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    distance = np.hypot(along / (radius * stretch), across * stretch / radius)
    waves = cv2.resize(
        rng.normal(0, 0.35, (KNOTS, KNOTS)), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray(np.clip(4 * (1.15 - distance + waves), 0, 1))
