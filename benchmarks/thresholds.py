"""Do thresholds keep their promise? False rejects of unseen good photos over random splits.

    python benchmarks/thresholds.py MAGNETIC_TILE GROUPS.csv [--splits 20] [--json FILE]

MAGNETIC_TILE is a folder in MVTec layout, GROUPS.csv says which of its good photos show the same
tile (columns file,group); the solar cells of elpv-dataset are added by themselves.

The good photos of train and test are pooled; each split draws a fifth of the scenes at random to
test on. The rest is fitted and calibrated as fre-export does it, near-copies found by itself, and
where each photo shows another part, also as with ``--groups none``. A split's false rejects are
compared with the binomial distribution of the target: with the number of scenes, since photos of
one scene stand or fall together. Of 20 such intervals of 95% one may be missed by chance.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from elpv import lay_out
from scipy.stats import binom

from fre_edge import Fit, FitOptions, fit
from fre_edge.extraction import extract, trunk_for
from fre_edge.grouping import FOLDS, automatic_groups
from fre_edge.state import State
from fre_edge.strategies.base import gram
from fre_runtime.conformal import conformal_quantile
from fre_runtime.environment import environment
from fre_runtime.files import IMAGE_SUFFIXES, list_files
from fre_runtime.groups import Groups, GroupTable
from fre_runtime.photos import PhotoReader
from fre_runtime.progress import track

TARGETS = (0.05, 0.01)
TEST_SHARE = 0.2
CONFIDENCE = 0.95


def good_photos(category: Path) -> list[Path]:
    folders = [category / "train/good", category / "test/good"]
    files = [path for folder in folders for path in list_files(folder)]
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]


def scores(fitted: Fit, features: list[np.ndarray]) -> np.ndarray:
    """Raw scores of rows of features under a fit, as the graph computes them."""
    head = fitted.head()
    with torch.inference_mode():
        tensors = [
            torch.from_numpy(layer).reshape(-1, *shape)
            for layer, shape in zip(features, fitted.shapes, strict=True)
        ]
        return head.raw(tensors)[0].numpy()


def measure(name: str, category: Path, table: Path | None, splits: int) -> list[dict]:
    paths = good_photos(category)
    base = fit(paths[:2], FitOptions())  # for the trunk only; what it learned is replaced
    trunk = trunk_for(base.extractor(), base.size, len(paths))
    photos, features = extract(trunk, PhotoReader(paths, *base.size), base.shapes)
    scenes = GroupTable.read(table).assign(photos) if table else np.arange(len(photos))
    results = []
    for grouping in ("auto",) if table else ("auto", "none"):
        rows = []
        for seed in track(range(splits), splits, f"{name}, groups {grouping}"):
            rows += one_split(base, photos, features, scenes, grouping, seed)
        results.append(
            {
                "data": name,
                "groups": grouping,
                "photos": len(photos),
                "scenes": len(np.unique(scenes)),
                "splits": rows,
                "summary": [summary(rows, fpr) for fpr in TARGETS],
            }
        )
    return results


def one_split(
    base: Fit,
    photos: list[Path],
    features: list[np.ndarray],
    scenes: Groups,
    grouping: str,
    seed: int,
) -> list[dict]:
    drawn = np.random.default_rng(seed).permutation(np.unique(scenes))
    test = np.isin(scenes, drawn[: round(TEST_SHARE * len(drawn))])
    train = np.flatnonzero(~test)
    learned_from = [layer[train] for layer in features]
    groups = np.arange(len(train))
    if grouping == "auto":
        groups = automatic_groups(gram(learned_from[0])[1])
    state = replace(State.of(learned_from), groups=groups)
    fitted = replace(base, photos=[photos[i] for i in train]).refit(state)
    unseen = scores(fitted, [layer[test] for layer in features])
    rows = []
    for fpr in TARGETS:
        threshold = conformal_quantile(fitted.held_out_scores, groups, fpr)
        rejected = unseen > threshold.value
        tested = len(np.unique(scenes[test]))
        low, high = interval(tested, fpr)
        rows.append(
            {
                "seed": seed,
                "fpr": fpr,
                "fpr_supported": threshold.fpr,
                "photos_fitted": len(train),
                "scenes_found": len(np.unique(groups)),
                "scenes_true": len(np.unique(scenes[train])),
                "photos_tested": int(test.sum()),
                "scenes_tested": tested,
                "false_reject_rate": float(rejected.mean()),
                "low": low,
                "high": high,
            }
        )
    return rows


def interval(count: int, rate: float) -> tuple[float, float]:
    """Between which shares ``count`` draws at ``rate`` lie with `CONFIDENCE`."""
    low, high = binom.interval(CONFIDENCE, count, rate)
    return float(low / count), float(high / count)


def summary(rows: list[dict], fpr: float) -> dict:
    chosen = [row for row in rows if row["fpr"] == fpr]
    rates = np.array([row["false_reject_rate"] for row in chosen])
    return {
        "fpr": fpr,
        "mean": float(rates.mean()),
        "smallest": float(rates.min()),
        "largest": float(rates.max()),
        "within": sum(row["low"] <= row["false_reject_rate"] <= row["high"] for row in chosen),
        "above": sum(row["false_reject_rate"] > row["high"] for row in chosen),
        "splits": len(chosen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("magnetic_tile", type=Path)
    parser.add_argument("groups", type=Path)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/thresholds.json"))
    args = parser.parse_args()
    report = {
        "environment": environment(),
        "folds": FOLDS,
        "confidence": CONFIDENCE,
        "results": measure("magnetic_tile", args.magnetic_tile, args.groups, args.splits),
    }
    with tempfile.TemporaryDirectory() as folder:
        cells = Path(folder) / "elpv_mono"
        lay_out(cells)
        report["results"] += measure("elpv_mono", cells, None, args.splits)
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    for result in report["results"]:
        for line in result["summary"]:
            print(result["data"], "groups", result["groups"], line)


if __name__ == "__main__":
    main()
