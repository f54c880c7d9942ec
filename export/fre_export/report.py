"""The page that fre-export puts into the model directory: what was learned, and from what."""

import logging

import numpy as np

from fre_edge.fitting import Fit
from fre_runtime.card import Card
from fre_runtime.errors import MissingDependencyError
from fre_runtime.report import plots
from fre_runtime.report.facts import card_rows, variant_rows
from fre_runtime.report.page import render, require_libraries
from fre_runtime.report.pictures import Shown, photo_picture
from fre_runtime.result import state_of

log = logging.getLogger(__name__)

ODDEST = 12
"""Photos that are shown."""
NAMES = 50
"""Files left out that are listed."""


def training_page(card: Card, fitted: Fit) -> str | None:
    """Render the page; None, and one line of warning, where its libraries are missing."""
    try:
        require_libraries()
    except MissingDependencyError as error:
        log.warning("no report is written: %s", error)
        return None
    calibration = fitted.calibration
    scores = calibration.image.calibrated(fitted.held_out_scores)
    return render(
        "training.html",
        title=f"{card.name}: what was learned",
        card=card_rows(card),
        variants=variant_rows(card),
        training=card.training,
        calibration=calibration,
        components=[(layer.name, layer.components, layer.variance) for layer in card.layers],
        histogram=plots.score_histogram(
            [plots.Class("good, held out", scores, plots.GOOD)],
            None,
            f"Histogram of the held-out scores of {len(scores)} good photos, threshold at 0.5",
        ),
        scored=len(scores),
        above=int((fitted.held_out_scores > calibration.image.value).sum()),
        oddest=[_shown(fitted, scores, i) for i in _oddest(fitted)],
        names=NAMES,
        version=card.versions.get("fre-edge", ""),
    )


def _oddest(fitted: Fit) -> list[int]:
    """Rows of the highest held-out scores, one of each scene: near-copies teach nothing new.

    Of this run's photos only: those of earlier models are not at hand.
    """
    order = np.argsort(-fitted.held_out_scores, kind="stable")
    order = order[fitted.photo_of_score[order] >= 0]
    _, first = np.unique(fitted.groups[order], return_index=True)
    return [int(order[place]) for place in np.sort(first)[:ODDEST]]


def _shown(fitted: Fit, scores: np.ndarray, row: int) -> Shown:
    path, score = fitted.photos[int(fitted.photo_of_score[row])], float(scores[row])
    return Shown(
        path.name, score, state_of(score), False, photo_picture(path, fitted.options.max_pixels)
    )
