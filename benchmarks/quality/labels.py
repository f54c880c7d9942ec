"""Labels that contradict each other: defective photos of what the training photos call good.

Photos of one part, taken one after another, may carry different labels. A fit that is shown such a
part as good has learned it, and whoever tests with the other photo asks it to contradict its
training. Nothing is left out of any other figure: this tells what such photos cost.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality.data import Category
from benchmarks.quality.features import Store
from benchmarks.quality.splits import Split, draw
from benchmarks.quality.summary import Row
from benchmarks.quality.sweeps import DEFAULT, Bench
from fre_runtime.metrics import auroc
from fre_runtime.progress import track

CUT = 0.8
"""Cosine of centred features of the first layer above which a photo is a near-copy of another."""


def measure(categories: Sequence[Category], seeds: int, store: Store) -> Row:
    """All categories over ``seeds`` draws of their splits."""
    rows: list[Row] = []
    for category in categories:
        bench = Bench(category, store)
        draws = (
            {
                "data": category.name,
                "seed": seed,
                **contradicted(bench, draw(category.split, seed, category.group_of)),
            }
            for seed in range(seeds)
        )
        measured = list(track(draws, seeds, f"labels of {category.name}"))
        say(measured[0])
        rows += measured
    return {"cut": CUT, "seeds": seeds, "results": rows}


def contradicted(bench: Bench, split: Split) -> Row:
    """Test photos with a near-copy in training, and image AUROC without the defective ones.

    ``pairs`` names each of those, the training photo most like it, and their cosine. To leave out
    defective photos alone can only flatter: good test photos with a near-copy, which are too easy,
    are counted beside, and ``image_auroc_without_any`` leaves out both. ``unread`` are defective
    photos without features: not readable, or the very picture of another photo.
    """
    fitted = bench.fitted(DEFAULT, split)
    paths, scores, _ = bench.scored(fitted, split)
    labels = np.array([bench.photos[path].is_defective for path in paths])
    folder, known = bench.category.folder, set(paths)
    first = fitted.backbone.layers[:1]
    [trained], [tested] = (
        bench.features(DEFAULT).rows(first, some) for some in (fitted.photos, paths)
    )
    nearest, cosines = most_alike(trained, tested)
    copies = cosines > CUT
    wrong = copies & labels
    found = np.flatnonzero(wrong)
    return {
        "defective": int(labels.sum()),
        "unread": [_name(path, folder) for path in bench.defective if path not in known],
        "copies": len(found),
        "good": int((~labels).sum()),
        "good_copies": int((copies & ~labels).sum()),
        "image_auroc": auroc(scores, labels),
        "image_auroc_without": auroc(scores[~wrong], labels[~wrong]),
        "image_auroc_without_any": auroc(scores[~copies], labels[~copies]),
        "image_auroc_of_copies": auroc(scores[wrong | ~labels], labels[wrong | ~labels])
        if len(found)
        else None,
        "pairs": [
            {
                "defective": _name(paths[i], folder),
                "good": _name(fitted.photos[nearest[i]], folder),
                "cosine": float(cosines[i]),
            }
            for i in found[np.argsort(-cosines[found])]
        ],
    }


def say(row: Row) -> None:
    """Say on stdout which photos to look at."""
    print(
        f"{row['data']}: {row['copies']} of {row['defective']} defective photos are nearly the "
        f"same as a good training photo; image AUROC {row['image_auroc']:.4f}, without them "
        f"{row['image_auroc_without']:.4f}"
    )
    for pair in row["pairs"]:
        print(f"  {pair['cosine']:.2f}  {pair['defective']}  {pair['good']}")
    for name in row["unread"]:
        print(f"  unreadable, or the very picture of another photo: {name}", flush=True)


def most_alike(trained: np.ndarray, tested: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training row most like each tested one, int (M,), and the cosine of the two, (M,).

    Parameters
    ----------
    trained, tested
        float32 (N, D) and (M, D), centred here on the mean of the first.
    """
    mean = trained.mean(0, dtype=np.float64)
    cosines = _unit(tested - mean) @ _unit(trained - mean).T
    nearest = cosines.argmax(1)
    return nearest, cosines[np.arange(len(tested)), nearest]


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, np.finfo(np.float32).tiny))


def _name(photo: Path, folder: Path) -> str:
    return photo.relative_to(folder).as_posix()
