"""Lay out the real solar-cell photos of the PyPI package elpv-dataset as an MVTec category.

    python benchmarks/elpv.py OUT

Mono-crystalline cells only. Defect probability 0 is good, 80% of them (seed 0) to train on and the
rest to test; probability 1 is defective; the uncertain ones between are left out.
Data: Deitsch et al., Automatic classification of defective photovoltaic module cells in
electroluminescence images, Solar Energy 2019 (CC BY-NC-SA 4.0).
"""

import csv
import importlib.util
import random
import shutil
import sys
from pathlib import Path

TRAIN_SHARE = 0.8


def lay_out(out: Path, seed: int = 0) -> dict[str, int]:
    """Copy the photos to ``out``; returns how many went into each folder."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise SystemExit("elpv-dataset is not installed; run: pip install elpv-dataset")
    data = Path(spec.origin).parent / "data"
    good, defective = [], []
    with (data / "labels.csv").open() as file:
        for path, probability, kind in csv.reader(file, delimiter=" ", skipinitialspace=True):
            if kind == "mono" and float(probability) in (0.0, 1.0):
                (defective if float(probability) else good).append(data / path)
    random.Random(seed).shuffle(good)
    cut = round(TRAIN_SHARE * len(good))
    folders = {"train/good": good[:cut], "test/good": good[cut:], "test/defective": defective}
    for folder, paths in folders.items():
        (out / folder).mkdir(parents=True, exist_ok=True)
        for path in paths:
            shutil.copyfile(path, out / folder / path.name)
    return {folder: len(paths) for folder, paths in folders.items()}


if __name__ == "__main__":
    for name, count in lay_out(Path(sys.argv[1])).items():
        print(f"{name}: {count}")
