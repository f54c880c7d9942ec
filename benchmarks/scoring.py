"""Fit on a category with given options and score its test photos, by the product's own modules.

What `subspaces.py` measures by: each row is a whole `fre_edge.fit`, held-out
calibration included, and the float32 module on every test photo.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from elpv import lay_out

from fre_edge import FitOptions, fit
from fre_runtime.environment import environment
from fre_runtime.files import labelled_images
from fre_runtime.image import read_image, read_mask
from fre_runtime.metrics import PixelMetrics, auroc
from fre_runtime.photos import PhotoReader

OPTIONS = (
    "backbone",
    "layers",
    "subspace",
    "variance",
    "relative",
    "pool_overlap",
    "score",
    "seed",
)


def score(category: Path, options: FitOptions) -> dict:
    """One row: what was fitted, image AUROC, rates at the threshold, and, with masks, the map's."""
    fitted = fit(category, options)
    module = fitted.module()
    images = {image.path: image for image in labelled_images(category)}
    labels, scores, pixels, masked = [], [], PixelMetrics(), False
    with torch.inference_mode():
        for photo in PhotoReader(list(images), *fitted.size):
            raw, raw_map = module.raw(torch.from_numpy(photo.image)[None])
            image = images[photo.path]
            labels.append(image.is_defective)
            scores.append(float(raw[0]))
            mask = None if image.mask is None else read_mask(image.mask)
            if image.is_defective and (mask is None or not mask.any()):
                continue
            masked |= mask is not None
            height, width = read_image(photo.path).shape[:2] if mask is None else mask.shape
            lifted = cv2.resize(raw_map[0, 0].numpy(), (width, height))
            pixels.add(lifted, np.zeros((height, width), bool) if mask is None else mask)
    labelled, values = np.array(labels), np.array(scores)
    over = values > fitted.calibration.image.value
    chosen = {key: value for key, value in asdict(fitted.options).items() if key in OPTIONS}
    return {
        "data": category.name,
        **chosen,
        "grids": [list(shape) for shape in fitted.shapes],
        "k": [sum(len(part.components) for part in parts) for parts in fitted.subspaces],
        "weights": sum(p.components.size for parts in fitted.subspaces for p in parts),
        "image_auroc": auroc(values, labelled),
        "false_reject_rate": float(over[~labelled].mean()),
        "detection_rate": float(over[labelled].mean()),
        "pixel_auroc": pixels.auroc() if masked else None,
        "aupro": pixels.aupro() if masked else None,
    }


@contextmanager
def with_solar_cells(categories: list[Path]) -> Iterator[list[Path]]:
    """The given categories and, last, the solar cells of elpv-dataset."""
    with tempfile.TemporaryDirectory() as folder:
        cells = Path(folder) / "elpv_mono"
        lay_out(cells)
        yield [*categories, cells]


def publish(path: Path, rows: list[dict]) -> None:
    """Write the rows, with machine and versions; called after each, so that none is lost."""
    path.write_text(json.dumps({"environment": environment(), "results": rows}, indent=1) + "\n")


def show(row: dict) -> None:
    """Print a row."""
    pixels = "-" if row["aupro"] is None else f"{row['pixel_auroc']:.4f}  {row['aupro']:.4f}"
    print(
        f"{row['data']:<30}{row['backbone']:<22}{'+'.join(row['layers']):<32}"
        f"{row['subspace']:<11}k {'+'.join(map(str, row['k'])):<14}"
        f"image {row['image_auroc']:.4f}  pixel, AUPRO {pixels}",
        flush=True,
    )
