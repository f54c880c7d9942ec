"""Which photos the parity proof runs on: real ones that the fit has not seen."""

from pathlib import Path

import numpy as np

from fre_edge.fitting import Fit
from fre_export.parity import Sample
from fre_runtime.errors import DataError, ImageError
from fre_runtime.files import labelled_images
from fre_runtime.image import Image, read_image

COUNT = 32


def parity_samples(images: Path | None, fit: Fit) -> tuple[list[Sample], str]:
    """Return up to `COUNT` photos at model size, evenly spread, and a description of them.

    From the category's test folder where there is one. Otherwise training photos turned by 180
    degrees: real, yet new to the model, on both sides of the threshold; where models are merged
    without photos, their golden ones, turned, mirrored and shifted. None influences the model.
    """
    if images is not None:
        try:
            paths = [image.path for image in labelled_images(images)]
        except DataError:
            paths = []
        samples = _read(_spread(paths), fit)
        if samples:
            return samples, "photos of the test folder"
    if not fit.photos:
        return _moved(fit), "golden photos of the merged models, turned, mirrored and shifted"
    turned = [
        Sample(f"{sample.name} (turned)", _turned(sample.image))
        for sample in _read(_spread(fit.photos), fit)
    ]
    return turned, "training photos turned by 180 degrees"


def golden_image(fit: Fit) -> Image:
    """The training photo with the median held-out score, turned by 180 degrees, at model size.

    Turned, since the error of a photo that the fit has seen can be mere rounding.
    """
    own = np.flatnonzero(fit.photo_of_score >= 0)
    if not len(own):
        return fit.earlier[0].golden
    order = own[np.argsort(fit.held_out_scores[own], kind="stable")]
    middle = fit.photos[int(fit.photo_of_score[order[len(order) // 2]])]
    return _turned(_read([middle], fit)[0].image)


def _moved(fit: Fit) -> list[Sample]:
    """The models' golden photos, turned, mirrored and shifted in as many ways as are needed."""
    samples = []
    for i in range(COUNT):
        way, which = divmod(i, len(fit.earlier))
        image = fit.earlier[which].golden
        image = _turned(image) if way % 2 else image
        image = image[:, ::-1] if way // 2 % 2 else image
        image = np.roll(image, way // 4 * image.shape[1] // 8, 1)
        samples.append(Sample(f"{fit.earlier[which].name}'s, {way}", np.ascontiguousarray(image)))
    return samples


def _turned(image: Image) -> Image:
    return np.ascontiguousarray(image[::-1, ::-1])


def _spread(paths: list[Path]) -> list[Path]:
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(COUNT, len(paths))).astype(int))
    return [paths[i] for i in chosen]


def _read(paths: list[Path], fit: Fit) -> list[Sample]:
    """Each photo as the model sees it; of its tiles one, another one each time."""
    samples = []
    for number, path in enumerate(paths):
        try:
            image = read_image(path, fit.options.max_pixels)
            plan = fit.options.view.plan(image.shape[0], image.shape[1])
        except ImageError:  # a broken test photo proves nothing either way
            continue
        tile = plan.tiles[(len(plan.tiles) // 2 + number) % len(plan.tiles)]
        samples.append(Sample(str(path), np.array(plan.input(image, tile, *fit.size))))
    return samples
