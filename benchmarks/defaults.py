"""The measurements that chose the default layers, grid, variance, score and grouping cut.

    python benchmarks/defaults.py CATEGORY [CATEGORY ...] [--json FILE]

Each CATEGORY is a folder in MVTec layout; the solar cells of elpv-dataset are added by themselves.
Two tables: image AUROC (with pixel AUROC and AUPRO where masks exist) for layers x pool x variance
x score; and, for the chosen layers, false-reject and detection rate at the calibrated threshold
for each grouping cut. The features come out of the same code as those of fre-export.
"""

import argparse
import itertools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from elpv import lay_out

from fre_edge.backbones import build_backbone
from fre_edge.calibrate import calibrate
from fre_edge.extraction import TorchTrunk, extract
from fre_edge.features import FeatureExtractor
from fre_edge.fitting import FOLDS
from fre_edge.fre import Reconstruction
from fre_edge.fusion import Fuse, finest_grid, held_out_fusion
from fre_edge.grouping import automatic_groups, make_folds
from fre_edge.heldout import held_out_maps
from fre_edge.images import PhotoReader
from fre_edge.options import SCORES
from fre_edge.subspace import Rank, fit_pca, gram
from fre_runtime.environment import environment
from fre_runtime.files import good_images, labelled_images
from fre_runtime.image import read_image, read_mask
from fre_runtime.metrics import PixelMetrics, auroc

TAPS = ("blocks.2", "blocks.3", "blocks.4", "blocks.5.2", "blocks.5")
SETS = (
    ("blocks.2",), ("blocks.3",), ("blocks.4",), ("blocks.5.2",), ("blocks.5",),
    ("blocks.3", "blocks.4"), ("blocks.2", "blocks.3", "blocks.4"), ("blocks.3", "blocks.5.2"),
    ("blocks.4", "blocks.5.2"), ("blocks.3", "blocks.4", "blocks.5.2"),
)  # fmt: skip
VARIANCES = (0.80, 0.90, 0.92, 0.95, 0.97)
POOLS = (2, 4)
CHOSEN = (("blocks.3", "blocks.5.2"), 2, 0.92, "p3")
CUTS = (None, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
RATES = (0.01, 0.05)


@dataclass
class DataSet:
    """Features of one category's training and test photos, at one pooling."""

    train: list
    test: list
    shapes: list
    labels: np.ndarray
    masks: list
    sizes: list


def load(category: Path, pool: int) -> DataSet:
    extractor = FeatureExtractor(build_backbone("efficientnet_lite0", TAPS), pool).eval()
    shapes, trunk = extractor.shapes(256, 256), TorchTrunk(extractor)
    _, train = extract(trunk, PhotoReader(good_images(category), 256, 256), shapes)
    images = {image.path: image for image in labelled_images(category)}
    kept, test = extract(trunk, PhotoReader(list(images), 256, 256), shapes)
    kept = [images[path] for path in kept]
    sizes = [read_image(image.path).shape[:2] for image in kept]
    masks = [None if image.mask is None else read_mask(image.mask) for image in kept]
    labels = np.array([image.is_defective for image in kept])
    return DataSet(train, test, shapes, labels, masks, sizes)


@dataclass
class LayerErrors:
    """Errors of one layer under one variance: energies (n, h * w) and held-out maps."""

    test: torch.Tensor
    held_out: np.ndarray
    components: int


def layer_errors(data: DataSet, matrices: list, index: int, folds: list, rank: Rank) -> LayerErrors:
    mean, matrix = matrices[index]
    subspace = fit_pca(data.train[index], mean, matrix, rank)
    features = torch.from_numpy(data.test[index]).reshape(-1, *data.shapes[index])
    with torch.inference_mode():
        test = Reconstruction(subspace)(features)
    held_out = held_out_maps(data.train[index], matrix, data.shapes[index], folds, rank)
    return LayerErrors(test, held_out, len(subspace.components))


def pixel_figures(data: DataSet, maps: np.ndarray) -> tuple[float, float]:
    pixels = PixelMetrics()
    for one, mask, size, label in zip(maps, data.masks, data.sizes, data.labels, strict=True):
        if label and (mask is None or not mask.any()):
            continue
        lifted = cv2.resize(one, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        pixels.add(lifted, np.zeros(size, bool) if mask is None else mask)
    return pixels.auroc(), pixels.aupro()


def quality_rows(name: str, data: DataSet, pool: int) -> list[dict]:
    matrices = [gram(layer) for layer in data.train]
    groups = automatic_groups(matrices[0][1])
    folds = make_folds(groups, FOLDS, 0)
    rows = []
    for variance in VARIANCES:
        errors = {
            tap: layer_errors(data, matrices, i, folds, Rank(variance))
            for i, tap in enumerate(TAPS)
        }
        for layers in SETS:
            shapes = [data.shapes[TAPS.index(layer)] for layer in layers]
            chosen = [errors[layer] for layer in layers]
            weights = sum(
                e.components * shape.dimension * 4 for e, shape in zip(chosen, shapes, strict=True)
            )
            row = {"data": name, "layers": layers, "pool": pool, "variance": variance}
            row |= {"k": [e.components for e in chosen], "mib": weights / 2**20}
            for score in SCORES:
                fusion, _, _ = held_out_fusion([e.held_out for e in chosen], shapes, score)
                scores, maps = Fuse(shapes, fusion, score).float()([e.test for e in chosen])
                row[score] = auroc(scores.numpy().astype(np.float64), data.labels)
            if any(mask is not None for mask in data.masks) and variance in (0.9, 0.92):
                row["pixel_auroc"], row["aupro"] = pixel_figures(
                    data, maps.reshape(-1, *finest_grid(shapes)).numpy()
                )
            rows.append(row)
    return rows


def grouping_rows(name: str, data: DataSet) -> list[dict]:
    layers, _, variance, score = CHOSEN
    indices = [TAPS.index(layer) for layer in layers]
    matrices = [gram(layer) for layer in data.train]
    shapes = [data.shapes[i] for i in indices]
    rows = []
    for cut in CUTS:
        count = len(data.train[0])
        groups = np.arange(count) if cut is None else automatic_groups(matrices[indices[0]][1], cut)
        folds = make_folds(groups, FOLDS, 0)
        errors = [layer_errors(data, matrices, i, folds, Rank(variance)) for i in indices]
        fusion, held_out, maxima = held_out_fusion([e.held_out for e in errors], shapes, score)
        scores, _ = Fuse(shapes, fusion, score).float()([e.test for e in errors])
        for fpr in RATES:
            tau = calibrate(held_out, maxima, groups, fpr, len(folds)).image.value
            over = scores.numpy() > tau
            rows.append(
                {
                    "data": name,
                    "cut": cut,
                    "scenes": len(np.unique(groups)),
                    "photos": count,
                    "fpr": fpr,
                    "false_reject_rate": float(over[~data.labels].mean()),
                    "detection_rate": float(over[data.labels].mean()),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("categories", nargs="*", type=Path)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/defaults.json"))
    args = parser.parse_args()
    report = {"environment": environment(), "chosen": CHOSEN, "quality": [], "grouping": []}
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder) / "elpv_mono")
        for category in [*args.categories, Path(folder) / "elpv_mono"]:
            for pool in POOLS:
                data = load(category, pool)
                report["quality"] += quality_rows(category.name, data, pool)
                if pool == CHOSEN[1]:
                    report["grouping"] += grouping_rows(category.name, data)
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    show(report)


def show(report: dict) -> None:
    names = list(dict.fromkeys(row["data"] for row in report["quality"]))
    key = lambda row: (tuple(row["layers"]), row["pool"], row["variance"])  # noqa: E731
    print("image AUROC by score, " + " / ".join(names))
    for (layers, pool, variance), rows in itertools.groupby(
        sorted(report["quality"], key=key), key
    ):
        by_name = {row["data"]: row for row in rows}
        cells = "  ".join(
            f"{score} " + "/".join(f"{by_name[name][score]:.4f}" for name in names)
            for score in SCORES
        )
        mib = max(row["mib"] for row in by_name.values())
        print(f"{'+'.join(layers):<32} pool {pool} v {variance:.2f} {mib:5.1f} MiB  {cells}")
    for row in report["grouping"]:
        print(
            f"{row['data']:<24} cut {row['cut']!s:<5} {row['scenes']:>4} scenes of {row['photos']},"
            f" fpr {row['fpr']:.2f}: rejects {row['false_reject_rate']:.3f} of good, "
            f"finds {row['detection_rate']:.3f}"
        )


if __name__ == "__main__":
    main()
