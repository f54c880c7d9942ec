"""The report of fre-eval: what a model is worth on a labelled data set, to look at and to file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fre_runtime.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    image_intervals,
    percentile_interval,
    wilson,
)
from fre_runtime.calibration import Calibration
from fre_runtime.detector import Detector
from fre_runtime.environment import environment
from fre_runtime.evaluation import Evaluation
from fre_runtime.files import mask_of
from fre_runtime.metrics import Bools, Floats, PixelMetrics, auroc, roc_curve
from fre_runtime.progress import track
from fre_runtime.report import plots
from fre_runtime.report.facts import card_rows, variant_rows
from fre_runtime.report.page import render
from fre_runtime.report.pictures import Shown, colour_scale, scored_picture

if TYPE_CHECKING:
    from markupsafe import Markup

REPLICATES = 400
"""Resamples of the pixel figures."""
WORST = 6
"""Photos in the galleries of good and of defective ones."""
KINDS = 8
"""Kinds of defect with a gallery of their own, of ..."""
PER_KIND = 3
"""... this many photos. With the size of a thumbnail these bound the size of the page."""
NAMES = 50
"""Files that are listed by name where something is wrong with them."""

RATES = ("detection_rate", "false_reject_rate")
STAGES = ("decode", "resize", "infer", "postprocess")


@dataclass(frozen=True)
class Figure:
    """A row of the table of figures."""

    name: str
    value: float | None
    interval: Interval | None
    meaning: str
    is_rate: bool
    """Of photos; shown in percent."""


@dataclass(frozen=True)
class Kind:
    """How one kind of defect fares."""

    name: str
    photos: int
    found: int
    interval: Interval
    auroc: float | None
    """Against all good photos."""
    lowest: float
    median: float


@dataclass(frozen=True)
class Gallery:
    """Photos under one heading."""

    title: str
    note: str
    photos: list[Shown]


def evaluation_page(
    detector: Detector,
    dataset: Path,
    evaluation: Evaluation,
    pixels: PixelMetrics,
    *,
    quiet: bool = False,
) -> str:
    """Render the report of an evaluation; ``pixels`` are those that `evaluate` filled."""
    scores = _Scores(evaluation)
    variant = detector.card.variants[detector.variant]
    figures = _figures(evaluation, scores, pixels)
    return render(
        "evaluation.html",
        title=f"{detector.card.name} on {dataset.absolute().name}",
        e=evaluation,
        figures=figures,
        headline=[figure for figure in figures if figure.value is not None][:4],
        alarm=_alarm(evaluation, scores, variant.calibration.fpr_supported),
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
        replicates=REPLICATES,
        histogram=_histogram(detector, scores),
        roc=_roc(evaluation, scores),
        pro=_pro(evaluation, pixels),
        kinds=_kinds(scores),
        galleries=_galleries(detector, dataset, scores, quiet=quiet),
        colour_scale=colour_scale(),
        has_masks=evaluation.aupro is not None,
        latency=_latency(scores),
        engine=detector.info,
        environment=environment(),
        card=card_rows(detector.card),
        variants=variant_rows(detector.card),
        fpr=variant.calibration.fpr_supported,
        held_out=_held_out(variant.calibration),
        names=NAMES,
        most_kinds=KINDS,
    )


class _Scores:
    """The evaluation's scores as arrays, in its own order."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.entries: list[tuple[str, dict[str, Any]]] = list(evaluation.scores.items())
        entries = evaluation.scores.values()
        self.raw = np.array([entry["raw"] for entry in entries], np.float64)
        self.calibrated = np.array([entry["score"] for entry in entries], np.float64)
        self.defective = np.array([entry["label"] for entry in entries], bool)
        self.rejected = np.array([entry["state"] == "anomalous" for entry in entries], bool)
        self.kind = np.array([entry["kind"] for entry in entries], object)
        self.order = np.argsort(self.raw, kind="stable")
        """Indices, the best first."""

    def ranked(self, chosen: Bools) -> list[int]:
        """Indices of the ``chosen`` photos, lowest score first."""
        return [int(i) for i in self.order if chosen[i]]


def _figures(e: Evaluation, scores: _Scores, pixels: PixelMetrics) -> list[Figure]:
    intervals = image_intervals(scores.raw, scores.defective)
    if e.aupro is not None and pixels.defective_images >= 2:
        resampled = zip(("pixel_auroc", "aupro"), pixels.resampled(), strict=True)
        intervals |= {name: percentile_interval(values) for name, values in resampled}
    if e.n_good:
        rejects = int(scores.rejected[~scores.defective].sum())
        intervals["false_reject_rate"] = wilson(rejects, e.n_good)
    if e.n_defective:
        found = int(scores.rejected[scores.defective].sum())
        intervals["detection_rate"] = wilson(found, e.n_defective)
    return [
        Figure(name, getattr(e, key), intervals.get(key), meaning, key in RATES)
        for key, name, meaning in (
            (
                "image_auroc", "image AUROC",
                "how often a defective photo scores higher than a good one",
            ),
            ("detection_rate", "detected", "defective photos above the threshold"),
            ("false_reject_rate", "false rejects", "good photos above the threshold"),
            ("aupro", "AUPRO (30%)", "how much of each defect the map finds"),
            ("pixel_auroc", "pixel AUROC", "how often a defective pixel outranks a good one"),
            ("image_ap", "average precision", "mean precision over all recalls"),
            ("image_f1_max", "largest F1", "at the best of all thresholds"),
        )
    ]  # fmt: skip


def _alarm(e: Evaluation, scores: _Scores, fpr: float) -> str | None:
    """What to say when good photos are rejected far more often than the threshold promises."""
    if not e.n_good:
        return None
    interval = wilson(int(scores.rejected[~scores.defective].sum()), e.n_good)
    if interval.low <= fpr:
        return None
    return (
        f"More good photos are rejected than the {fpr:.1%} that the threshold was set for: these "
        "photos differ from those that it was set on, in light, position or parts."
    )


def _histogram(detector: Detector, scores: _Scores) -> "Markup":
    calibration = detector.card.variants[detector.variant].calibration
    classes = [
        plots.Class(name, scores.calibrated[chosen], colour)
        for name, chosen, colour in (
            ("good", ~scores.defective, plots.GOOD),
            ("defective", scores.defective, plots.BAD),
        )
        if chosen.any()
    ]
    return plots.score_histogram(
        classes,
        (calibration.held_out, calibration.image),
        "Histogram of the scores of "
        + " and ".join(f"{len(c.scores)} {c.name} photos" for c in classes)
        + ", threshold at 0.5",
    )


def _held_out(calibration: Calibration) -> str:
    """The photos that the threshold rests on, as the page says it."""
    if calibration.folds:
        return "the training photos, each scored by a model that had not seen it"
    return f"the {calibration.photos} {calibration.source} that the model was calibrated on"


def _roc(e: Evaluation, scores: _Scores) -> "Markup | None":
    if e.image_auroc is None or e.false_reject_rate is None or e.detection_rate is None:
        return None
    return plots.curve(
        roc_curve(scores.raw, scores.defective),
        ("good photos rejected", "defective photos detected"),
        1.0,
        f"ROC curve of the image scores, area {e.image_auroc:.4f}",
        (e.false_reject_rate, e.detection_rate),
    )


def _pro(e: Evaluation, pixels: PixelMetrics) -> "Markup | None":
    if e.aupro is None:
        return None
    return plots.curve(
        pixels.pro_curve(),
        ("good pixels marked", "mean share of a defect marked"),
        pixels.limit,
        f"PRO curve of the maps up to {pixels.limit:.0%} false positives, area {e.aupro:.4f}",
    )


def _kinds(scores: _Scores) -> list[Kind]:
    good = ~scores.defective
    kinds = []
    for name in sorted(set(scores.kind[scores.defective])):
        chosen = scores.kind == name
        found = int(scores.rejected[chosen].sum())
        either = chosen | good
        kinds.append(
            Kind(
                name,
                int(chosen.sum()),
                found,
                wilson(found, int(chosen.sum())),
                auroc(scores.raw[either], chosen[either]) if good.any() else None,
                float(scores.calibrated[chosen].min()),
                float(np.median(scores.calibrated[chosen])),
            )
        )
    return kinds


def _galleries(detector: Detector, dataset: Path, scores: _Scores, *, quiet: bool) -> list[Gallery]:
    plan = list(_plan(scores))
    total = sum(len(indices) for _, _, indices in plan)
    shown = (
        _shown(detector, dataset, *scores.entries[i]) for _, _, indices in plan for i in indices
    )
    photos = iter(list(shown if quiet else track(shown, total, "report")))
    return [Gallery(title, note, [next(photos) for _ in indices]) for title, note, indices in plan]


def _plan(scores: _Scores) -> Iterator[tuple[str, str, list[int]]]:
    """Headings, notes and indices of the photos to show."""
    good, bad = scores.ranked(~scores.defective), scores.ranked(scores.defective)
    if good:
        yield "Good photos that score highest", "the likeliest false rejects", good[::-1][:WORST]
    if bad:
        yield "Defective photos that score lowest", "missed, or nearly", bad[:WORST]
    kinds = sorted(set(scores.kind[scores.defective]))
    for kind in kinds[:KINDS]:
        ranked = scores.ranked(scores.kind == kind)[::-1]
        places = np.unique(np.linspace(0, len(ranked) - 1, PER_KIND).astype(int))
        yield f"Defect: {kind}", "highest, middle and lowest score", [ranked[i] for i in places]


def _shown(detector: Detector, dataset: Path, name: str, entry: dict[str, Any]) -> Shown:
    path = dataset / name
    mask = mask_of(dataset, path)
    picture = scored_picture(detector, path, mask)
    return Shown(name, entry["score"], entry["state"], entry["label"], picture)


def _latency(scores: _Scores) -> list[tuple[str, list[float]]]:
    """Mean, median, 95th percentile and maximum of each stage in ms, the sum last."""
    stages = {
        stage: np.array([entry["ms"][stage] for _, entry in scores.entries]) for stage in STAGES
    }
    stages["in all"] = np.sum(list(stages.values()), axis=0)
    return [(stage, _spread(times)) for stage, times in stages.items()]


def _spread(times: Floats) -> list[float]:
    figures: Sequence[Any] = (
        times.mean(), np.median(times), np.percentile(times, 95), times.max()
    )  # fmt: skip
    return [float(figure) for figure in figures]
