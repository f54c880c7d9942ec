"""What keeping W in 8 bits does to the scores.

    python benchmarks/rounding.py CATEGORY [CATEGORY ...] [--json FILE]

Each CATEGORY is a folder in MVTec layout; the solar cells of elpv-dataset are added by themselves.
For the test photos of each: the raw score S of the module as it ships, against the same with the
exact float64 W.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from elpv import lay_out

from fre_edge import FitOptions, fit
from fre_edge.expectation import Expected
from fre_edge.extraction import extract, trunk_for
from fre_edge.fitting import Fit
from fre_edge.strategies.base import Subspace
from fre_runtime.environment import environment
from fre_runtime.files import labelled_images
from fre_runtime.metrics import auroc
from fre_runtime.photos import PhotoReader


def exact(
    features: np.ndarray, subspace: Subspace, channels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energies (N, h w) and code (N, k) of one layer, float64."""
    w = subspace.components.astype(np.float64)
    x = features.astype(np.float64) - subspace.mean
    code = x @ w.T
    error = (x - code @ w).reshape(len(x), channels, -1)
    return torch.from_numpy(np.square(error).sum(1)), torch.from_numpy(code)


def measure(category: Path) -> dict:
    fitted: Fit = fit(category, FitOptions(fpr=0.05))
    labels = {image.path: image.is_defective for image in labelled_images(category)}
    trunk = trunk_for(fitted.extractor(), fitted.size, len(labels))
    photos, features = extract(trunk, PhotoReader(list(labels), *fitted.size), fitted.shapes)
    head = fitted.head()
    with torch.inference_mode():
        tensors = [
            torch.from_numpy(u).reshape(-1, *shape)
            for u, shape in zip(features, fitted.shapes, strict=True)
        ]
        shipped = head.raw(tensors)[0].numpy()
        energies, codes = zip(
            *(
                exact(u, subspace, shape.channels)
                for u, (subspace,), shape in zip(
                    features, fitted.subspaces, fitted.shapes, strict=True
                )
            ),
            strict=True,
        )
        expected = None
        if fitted.expectation is not None:
            units = torch.ones(codes[0].shape[1])
            expected = Expected(fitted.expectation, units).double()(tensors[0].double(), codes[0])
        unrounded = head.fuse.double()(energies, expected)[0].numpy()
    change = np.abs(shipped / unrounded - 1)
    label = np.array([labels[photo] for photo in photos])
    tau = fitted.calibration.image.value
    return {
        "data": category.name,
        "photos": len(photos),
        "relative_change": {
            "median": float(np.median(change)),
            "p99": float(np.percentile(change, 99)),
            "max": float(change.max()),
            "mean_signed": float((shipped / unrounded - 1).mean()),
        },
        "labels_changed": int(((shipped > tau) != (unrounded > tau)).sum()),
        "image_auroc": {"shipped": auroc(shipped, label), "exact": auroc(unrounded, label)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("categories", nargs="*", type=Path)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/rounding.json"))
    args = parser.parse_args()
    report: dict = {"environment": environment(), "results": []}
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder) / "elpv_mono")
        for category in [*args.categories, Path(folder) / "elpv_mono"]:
            report["results"].append(measure(category))
            print(report["results"][-1], flush=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
