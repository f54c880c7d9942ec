"""Which photos the parity proof runs on: real ones that the fit has not seen."""

from pathlib import Path

import numpy as np

from fre_edge.fitting import Fit
from fre_export.parity import Sample
from fre_runtime.errors import DataError, ImageError
from fre_runtime.files import labelled_images
from fre_runtime.image import Image, read_image, resize

COUNT = 32


def parity_samples(images: Path | None, fit: Fit) -> tuple[list[Sample], str]:
    """Return up to `COUNT` photos at model size, evenly spread, and a description of them.

    From the category's test folder where there is one. Otherwise training photos turned by 180
    degrees: real, yet new to the model, on both sides of the threshold. Neither influences the
    model in any way.
    """
    if images is not None:
        try:
            paths = [image.path for image in labelled_images(images)]
        except DataError:
            paths = []
        samples = _read(_spread(paths), fit.size)
        if samples:
            return samples, "photos of the test folder"
    turned = [
        Sample(f"{sample.name} (turned)", _turned(sample.image))
        for sample in _read(_spread(fit.photos), fit.size)
    ]
    return turned, "training photos turned by 180 degrees"


def golden_image(fit: Fit) -> Image:
    """The training photo with the median held-out score, turned by 180 degrees, at model size.

    Turned, since the error of a photo that the fit has seen can be mere rounding.
    """
    order = np.argsort(fit.held_out_scores, kind="stable")
    photo = read_image(fit.photos[int(order[len(order) // 2])])
    return _turned(resize(photo, *fit.size))


def _turned(image: Image) -> Image:
    return np.ascontiguousarray(image[::-1, ::-1])


def _spread(paths: list[Path]) -> list[Path]:
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(COUNT, len(paths))).astype(int))
    return [paths[i] for i in chosen]


def _read(paths: list[Path], size: tuple[int, int]) -> list[Sample]:
    samples = []
    for path in paths:
        try:
            samples.append(Sample(str(path), resize(read_image(path), *size)))
        except ImageError:  # a broken test photo proves nothing either way
            continue
    return samples
