"""Scoring a labelled data set with an exported model."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_runtime.detector import Detector
from fre_runtime.errors import DataError, ImageError
from fre_runtime.files import LabelledImage, labelled_images
from fre_runtime.image import read_mask
from fre_runtime.metrics import PixelMetrics, auroc, average_precision, f1_max
from fre_runtime.progress import track
from fre_runtime.result import Result


@dataclass
class Evaluation:
    """Quality figures; rates and areas in 0..1, None where they cannot be computed."""

    image_auroc: float | None
    image_ap: float | None
    image_f1_max: float | None
    false_reject_rate: float | None
    """Good photos over the calibrated threshold, as a fraction."""
    detection_rate: float | None
    """Defective photos over the calibrated threshold, as a fraction."""
    pixel_auroc: float | None
    aupro: float | None
    n_good: int
    n_defective: int
    engine: str
    variant: str
    scores: dict[str, dict[str, Any]]
    """By path below the data set: raw and calibrated score, label, kind of defect, state, and the
    milliseconds of each stage."""
    detection_rate_by_kind: dict[str, float] = field(default_factory=dict)
    empty_masks: list[str] = field(default_factory=list)
    """Defective photos whose mask marks nothing; they enter no pixel figure."""
    invalid: dict[str, str] = field(default_factory=dict)
    """Images that could not be scored, with the reason; they enter no figure."""


def evaluate(
    detector: Detector,
    dataset: Path,
    *,
    pixels: PixelMetrics | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Score every photo of an MVTec-layout data set.

    Pixel metrics use the map lifted to each photo's own size, over good photos and those
    defective ones that have a mask. They are gathered in ``pixels``, which a caller gives to see
    more of them than the two figures.

    Raises
    ------
    DataError
        When the layout is wrong, or no photo can be scored.
    """
    images = labelled_images(dataset)
    pixels = pixels or PixelMetrics()
    masks = False
    empty_masks: list[str] = []
    invalid: dict[str, str] = {}
    scores: dict[str, dict[str, Any]] = {}
    shown = _scored(detector, images, invalid, dataset)
    for image, result in shown if quiet else track(shown, len(images), "scoring"):
        scores[_name(image, dataset)] = {
            "raw": result.raw_score,
            "score": result.score,
            "label": image.is_defective,
            "kind": image.kind,
            "state": result.state,
            "ms": result.timings,
        }
        if image.mask is None and image.is_defective:
            continue
        mask = _mask(image, result, detector.max_pixels)
        if image.is_defective and not mask.any():
            empty_masks.append(_name(image, dataset))
            continue
        masks = masks or image.is_defective
        # Odds instead of probabilities: the same order, but not crowded against 1.
        with np.errstate(divide="ignore"):
            pixels.add(result.anomaly_map / (np.float32(1) - result.anomaly_map), mask)
    if not scores:
        raise DataError(f"{dataset}: none of its {len(images)} test images could be scored")
    summary = _summary(detector, scores, pixels if masks else None)
    return dataclasses.replace(summary, empty_masks=empty_masks, invalid=invalid)


def _name(image: LabelledImage, dataset: Path) -> str:
    return image.path.relative_to(dataset).as_posix()


def _scored(
    detector: Detector, images: list[LabelledImage], invalid: dict[str, str], dataset: Path
) -> Iterator[tuple[LabelledImage, Result]]:
    for image in images:
        try:
            result = detector(image.path)
        except ImageError as error:
            invalid[_name(image, dataset)] = str(error)
            continue
        if result.state == "invalid":
            invalid[_name(image, dataset)] = f"{image.path}: the score is not a number"
        else:
            yield image, result


def _mask(image: LabelledImage, result: Result, max_pixels: int) -> NDArray[np.bool_]:
    size = result.image_size
    if image.mask is None:
        return np.zeros(size, bool)
    mask = read_mask(image.mask, max_pixels)
    if mask.shape != size:
        raise DataError(
            f"{image.mask}: is {mask.shape[0]} x {mask.shape[1]}, its photo {size[0]} x "
            f"{size[1]} (height x width); masks must have the size of their photo"
        )
    return mask


def _summary(
    detector: Detector,
    scores: dict[str, dict[str, Any]],
    pixels: PixelMetrics | None,
) -> Evaluation:
    raw = np.array([entry["raw"] for entry in scores.values()], np.float64)
    label = np.array([entry["label"] for entry in scores.values()], bool)
    rejected = np.array([entry["state"] == "anomalous" for entry in scores.values()], bool)
    kinds = sorted({entry["kind"] for entry in scores.values() if entry["label"]})
    by_kind = {
        kind: float(
            np.mean([e["state"] == "anomalous" for e in scores.values() if e["kind"] == kind])
        )
        for kind in kinds
    }
    both = bool(label.any() and (~label).any())
    return Evaluation(
        image_auroc=auroc(raw, label) if both else None,
        image_ap=average_precision(raw, label) if both else None,
        image_f1_max=f1_max(raw, label) if both else None,
        false_reject_rate=float(rejected[~label].mean()) if (~label).any() else None,
        detection_rate=float(rejected[label].mean()) if label.any() else None,
        pixel_auroc=_number(pixels.auroc()) if pixels else None,
        aupro=_number(pixels.aupro()) if pixels else None,
        n_good=int((~label).sum()),
        n_defective=int(label.sum()),
        engine=detector.info.engine,
        variant=detector.variant,
        scores=scores,
        detection_rate_by_kind=by_kind,
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
