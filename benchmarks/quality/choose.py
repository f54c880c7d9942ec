"""The variance to keep, chosen without a defective photo, held against what test labels say.

Training photos that a fit has not seen are scored as they are and with a defect painted on
(`benchmarks.quality.painted`). The variance is best where the two lie furthest apart, in units of
how much good photos differ among each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from benchmarks.quality.data import Category
from benchmarks.quality.features import Features, Store
from benchmarks.quality.painted import paint_all
from benchmarks.quality.splits import Split
from benchmarks.quality.summary import Row
from benchmarks.quality.sweeps import DEFAULT, VARIANCES, Bench, raw_scores
from fre_edge import FitOptions
from fre_edge.grouping import FOLDS, make_folds
from fre_runtime.metrics import auroc
from fre_runtime.ordered import ordered_map
from fre_runtime.progress import track
from fre_runtime.threads import default_threads


def measure(categories: Sequence[Category], store: Store, *, quick: bool) -> Row:
    """All categories, on their given splits."""
    variances = VARIANCES[::4] if quick else VARIANCES
    rows = []
    for category in categories:
        bench = Bench(category, store)
        for variance, found in track(
            weighed(bench, variances), len(variances), f"choosing on {category.name}"
        ):
            rows.append({"data": category.name, "variance": variance, **found})
    return {
        "default": DEFAULT.variance,
        "results": rows,
        "summary": [summary(category.name, rows) for category in categories],
    }


def weighed(bench: Bench, variances: Sequence[float]) -> Iterator[tuple[float, Row]]:
    """Each variance with its `separation` and, for comparison alone, the test image AUROC."""
    split = bench.category.split
    features = bench.features(DEFAULT)
    known = set(features.photos)
    photos = [path for path in split.train if path in known]
    painted = painted_features(bench, photos)
    options = [replace(DEFAULT, variance=variance) for variance in variances]
    full = bench.fitted(DEFAULT, split)
    folds = [
        (Split(tuple(np.delete(photos, fold)), ()), [photos[i] for i in fold])
        for fold in make_folds(full.groups, FOLDS, DEFAULT.seed)
    ]

    def one(wanted: FitOptions) -> Row:
        clean, marked = [], []
        for rest, held_out in folds:
            fitted = bench.fitted(wanted, rest)
            clean.append(raw_scores(fitted, held_out, features))
            marked.append(raw_scores(fitted, held_out, painted))
        fitted = bench.fitted(wanted, split)
        paths, scores, _ = bench.scored(fitted, split)
        labels = np.array([bench.photos[path].is_defective for path in paths])
        return {
            "separation": separation(np.concatenate(clean), np.concatenate(marked)),
            "image_auroc": auroc(scores, labels),
        }

    workers = default_threads()
    with threadpool_limits(1):
        found = ordered_map(one, options, workers, workers, lambda: torch.set_num_threads(1))
        yield from zip(variances, found, strict=True)


def painted_features(bench: Bench, photos: Sequence[Path]) -> Features:
    """Features of ``photos`` with a defect painted on, known by the paths of the originals."""
    with TemporaryDirectory() as folder:
        base = bench.base(DEFAULT)
        painted = paint_all(photos, base.size, Path(folder))
        original = dict(zip(painted, photos, strict=True))
        found = bench.store.get(base, painted)
    return replace(found, photos=[original[path] for path in found.photos])


def separation(clean: np.ndarray, marked: np.ndarray) -> float:
    """Mean rise of the log score by a painted defect, over the spread of good photos.

    Parameters
    ----------
    clean, marked
        Raw scores > 0 of the same photos without and with a defect, (N,).
    """
    good = np.log(clean)
    return float((np.log(marked) - good).mean() / good.std())


def summary(data: str, rows: Sequence[Row]) -> Row:
    """What was chosen, what test labels would choose, and how far the two orders agree.

    The rank correlation is None where all values of one are equal.
    """
    measured = [row for row in rows if row["data"] == data]
    chosen, best = (
        max(measured, key=lambda row: row[key]) for key in ("separation", "image_auroc")
    )
    columns = [[row[key] for row in measured] for key in ("separation", "image_auroc")]
    differ = all(len(set(column)) > 1 for column in columns)
    return {
        "data": data,
        "chosen": chosen["variance"],
        "image_auroc": chosen["image_auroc"],
        "best": best["variance"],
        "best_image_auroc": best["image_auroc"],
        "rank_correlation": float(spearmanr(*columns).statistic) if differ else None,
    }
