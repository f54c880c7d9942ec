"""No speed without quality: what a model must still be able to do before it is timed."""

import dataclasses
from pathlib import Path
from typing import Any

from fre_runtime.errors import DataError, QualityError
from fre_runtime.evaluation import Evaluation, evaluate
from fre_runtime.harness.sides import Side

MIN_AUROC = 0.9
"""Default floor: of a defective and a good photo, nine pairs in ten are in the right order."""

MAX_AUROC_LOSS = 0.002
"""Largest loss of image AUROC against fp32 that a variant may show."""

MAX_REJECT_CHANGE = 0.01
"""Largest difference of the false-reject rate from fp32's, either way."""

REFERENCE = "fp32"
ROUNDING = 1e-9
FIGURES = (
    "image_auroc", "image_ap", "image_f1_max", "false_reject_rate", "detection_rate", "n_good",
    "n_defective",
)  # fmt: skip


def check_quality(
    side: Side, dataset: Path, min_auroc: float = MIN_AUROC, *, quiet: bool = False
) -> dict[str, Any]:
    """Score a data set with the very build that is to be timed; returns its figures.

    A variant other than fp32 is held against fp32 on the same engine, too.

    Raises
    ------
    QualityError
        When image AUROC is below ``min_auroc``, or the variant strays too far from fp32.
    DataError
        When the data set lacks good or defective photos, or holds one that cannot be scored.
    """
    found = _evaluate(side, dataset, quiet)
    auroc, rejects = _figures(found)
    name = f"{side.name}: {side.engine} {side.variant}"
    if auroc < min_auroc - ROUNDING:
        raise QualityError(
            f"{name} has image AUROC {auroc:.4f} on {dataset}, {min_auroc:g} is the least "
            "(--min-auroc); nothing is measured"
        )
    figures = {
        "model": str(side.name),
        "engine": found.engine,
        "variant": side.variant,
        "dataset": str(dataset),
        "min_auroc": min_auroc,
        **{key: getattr(found, key) for key in FIGURES},
    }
    if side.variant == REFERENCE or REFERENCE not in side.model.card.variants:
        return figures
    reference = dataclasses.replace(side, variant=REFERENCE)
    auroc_there, rejects_there = _figures(_evaluate(reference, dataset, quiet))
    if auroc < auroc_there - MAX_AUROC_LOSS - ROUNDING:
        raise QualityError(
            f"{name} has image AUROC {auroc:.4f} on {dataset}, {auroc_there:.4f} in {REFERENCE}; "
            f"it may lose {MAX_AUROC_LOSS:g}; nothing is measured"
        )
    if abs(rejects - rejects_there) > MAX_REJECT_CHANGE + ROUNDING:
        raise QualityError(
            f"{name} rejects {rejects:.2%} of the good photos of {dataset}, {rejects_there:.2%} in "
            f"{REFERENCE}; they may differ by {MAX_REJECT_CHANGE:.0%}; nothing is measured"
        )
    return figures | {"reference": {"image_auroc": auroc_there, "false_reject_rate": rejects_there}}


def describe_quality(figures: dict[str, Any]) -> str:
    """One line on a build that has passed."""
    return (
        f"{figures['engine']} {figures['variant']} of {figures['model']} passed with image AUROC "
        f"{figures['image_auroc']:.4f} and {figures['false_reject_rate']:.1%} false rejects on "
        f"{figures['n_good']} good and {figures['n_defective']} defective photos"
    )


def _evaluate(side: Side, dataset: Path, quiet: bool) -> Evaluation:
    found = evaluate(side.detector(), dataset, quiet=quiet)
    if found.invalid:
        raise DataError(
            f"{dataset}: {len(found.invalid)} photos could not be scored, so the gate cannot "
            f"decide; the first: {next(iter(found.invalid.values()))}"
        )
    return found


def _figures(found: Evaluation) -> tuple[float, float]:
    if found.image_auroc is None or found.false_reject_rate is None:
        raise DataError(
            f"the gate needs good and defective photos, got {found.n_good} and "
            f"{found.n_defective}; give a data set with test/good and test/<defect>"
        )
    return found.image_auroc, found.false_reject_rate
