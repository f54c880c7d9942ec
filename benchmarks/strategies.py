"""The strategies against scikit-learn, on the same features.

    python benchmarks/strategies.py CATEGORY [--runs 5] [--json FILE]

On the features of a category (default layers, float32) and on larger synthetic ones with a known,
slowly falling spectrum: the exact PCA beside ``PCA(svd_solver="full")``, the incremental one beside
``IncrementalPCA`` with the batches that suit it best of those tried, the randomised one beside
``PCA(svd_solver="randomized")``, in turn and several times, each with as many threads as the
machine has cores. Beside the time: the variance that the best k components hold and each of
theirs lacks, measured on the features. Then the tied autoencoder, cold and warm: its time, what it
lacks, and its principal angles with the PCA.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA, IncrementalPCA

from fre_edge.backbones import build_backbone
from fre_edge.extraction import extract, trunk_for
from fre_edge.features import FeatureExtractor
from fre_edge.strategies.autoencoder import Autoencoder
from fre_edge.strategies.base import Rank, Rows, Subspace
from fre_edge.strategies.incremental import Incremental
from fre_edge.strategies.pca import Pca
from fre_edge.strategies.randomized import Randomized
from fre_runtime.environment import environment
from fre_runtime.files import good_images
from fre_runtime.photos import PhotoReader

SHARE = 0.90
TARGETS = {"pca": 3.0, "incremental": 2.0}


def lacking(x: np.ndarray, energy: float, best: float, subspace: Subspace) -> float:
    """Share of the variance that the subspace misses of the best k's."""
    w = np.linalg.qr(subspace.components.T.astype(np.float64))[0]
    return best - sum(float(np.square(b @ w).sum()) for b in np.array_split(x, 20)) / energy


def of_sklearn(fitted: PCA | IncrementalPCA) -> Subspace:
    mean, components = (a.astype(np.float32) for a in (fitted.mean_, fitted.components_))
    return Subspace(mean, components, np.zeros(0), 0.0, 0.0)


def pairs(k: int, batch: int) -> dict[str, tuple[Callable, Callable]]:
    """Ours and theirs, by strategy; each takes float32 (N, D)."""
    rank = Rank(1.0, k)
    sklearn: dict[str, PCA | IncrementalPCA] = {
        "pca": PCA(k, svd_solver="full"),
        "incremental": IncrementalPCA(k, batch_size=batch),
        "randomized": PCA(k, svd_solver="randomized", random_state=0),
    }
    ours = {"pca": Pca(), "incremental": Incremental(), "randomized": Randomized()}
    return {
        name: (
            lambda x, one=one: one.fit(Rows(x), rank),
            lambda x, name=name: of_sklearn(sklearn[name].fit(x)),
        )
        for name, one in ours.items()
    }


SETTLE = 0.3
"""Seconds between two sides: numpy and scipy have a BLAS each, whose threads spin for a while."""


def timed(work: Callable, x: np.ndarray) -> tuple[float, Subspace]:
    time.sleep(SETTLE)
    start = time.perf_counter()
    found = work(x)
    return time.perf_counter() - start, found


def compare(name: str, x: np.ndarray, k: int, runs: int) -> list[dict]:
    centred = x - x.mean(0, dtype=np.float64)
    energy = float(np.square(centred).sum())
    exact = Pca().fit(Rows(x), Rank(1.0, k))
    best = exact.captured
    # scikit-learn wants at least k rows a batch; a few sizes, the fastest counts.
    tried = {
        b: timed(lambda x, b=b: IncrementalPCA(k, batch_size=b).fit(x), x)[0]
        for b in (k, 2 * k, 5 * k)
        if b <= len(x)
    }
    batch = min(tried, key=tried.__getitem__)
    rows = []
    for strategy, (ours, theirs) in pairs(k, batch).items():
        seconds: dict[str, list[float]] = {"ours": [], "sklearn": []}
        for _ in range(runs):
            for side, work in (("ours", ours), ("sklearn", theirs)):
                taken, found = timed(work, x)
                seconds[side].append(taken)
                if side == "ours":
                    subspace = found
                else:
                    other = found
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["sklearn"], strict=True)]
        row = {
            "features": name, "rows": len(x), "columns": x.shape[1], "k": k, "strategy": strategy,
            "batch_of_sklearn": batch, "seconds": seconds,
            "times_faster": {
                "median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)
            },
            "target": TARGETS.get(strategy),
            "best_variance": best,
            "lacking": lacking(centred, energy, best, subspace),
            "lacking_of_sklearn": lacking(centred, energy, best, other),
            "promised_shortfall": subspace.shortfall,
        }  # fmt: skip
        rows.append(row)
        print(
            f"{name} {x.shape}, k={k}, {strategy}: {statistics.median(seconds['ours']):.2f} s, "
            f"{row['times_faster']['median']:.2f} times faster than scikit-learn; lacks "
            f"{row['lacking']:.2e} of the best {best:.4f} (scikit-learn "
            f"{row['lacking_of_sklearn']:.2e})",
            flush=True,
        )
    return rows


def autoencoders(name: str, x: np.ndarray, k: int) -> list[dict]:
    centred = x - x.mean(0, dtype=np.float64)
    energy = float(np.square(centred).sum())
    exact = Pca().fit(Rows(x), Rank(1.0, k))
    best = exact.captured
    rows = []
    for warm in (False, True):
        taken, found = timed(
            lambda x, warm=warm: Autoencoder(tied=True, warm=warm).fit(Rows(x), Rank(1.0, k)), x
        )
        overlap = exact.components.astype(np.float64) @ found.components.T.astype(np.float64)
        angles = np.degrees(np.arccos(np.clip(np.linalg.svd(overlap)[1], -1, 1)))
        row = {
            "features": name, "strategy": "tied-ae", "warm": warm, "k": k, "seconds": taken,
            "lacking": lacking(centred, energy, best, found), "best_variance": best,
            "principal_angles_degrees": {
                "median": float(np.median(angles)), "largest": float(angles.max())
            },
        }  # fmt: skip
        rows.append(row)
        print(
            f"{name}, tied-ae{', warm' if warm else ''}, k={k}: {taken:.1f} s, lacks "
            f"{row['lacking']:.2e} of {best:.4f}, principal angles up to {angles.max():.2f} deg",
            flush=True,
        )
    return rows


def features_of(category: Path) -> list[np.ndarray]:
    backbone = build_backbone("efficientnet_lite0")
    extractor = FeatureExtractor(backbone, 2, overlap=backbone.spec.overlap).eval()
    paths = good_images(category)
    trunk = trunk_for(extractor, (256, 256), len(paths))
    return extract(trunk, PhotoReader(paths, 256, 256), extractor.shapes(256, 256))[1]


def synthetic(rows: int, columns: int, rank: int = 2000) -> np.ndarray:
    """Rows whose variances fall as 1/i^1.2, as those of real features roughly do."""
    rng = np.random.default_rng(0)
    scale = np.arange(1, rank + 1, dtype=np.float32) ** -0.6
    mixing = rng.standard_normal((rank, columns), np.float32) * scale[:, None]
    return np.concatenate(
        [rng.standard_normal((len(p), rank), np.float32) @ mixing + 1
         for p in np.array_split(np.arange(rows), max(1, rows // 500))]
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("category", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2000, help="of the synthetic features")
    parser.add_argument("--columns", type=int, default=8192)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/strategies.json"))
    args = parser.parse_args()
    report: dict = {"environment": environment(), "strategies": [], "autoencoders": []}
    layers = features_of(args.category)
    for i, x in enumerate(layers):
        k = len(Pca().fit(Rows(x), Rank(SHARE)).components)
        report["strategies"] += compare(f"{args.category.name}, layer {i}", x, k, args.runs)
    x = synthetic(args.rows, args.columns)
    report["strategies"] += compare("synthetic", x, 100, args.runs)
    k = len(Pca().fit(Rows(layers[-1]), Rank(SHARE)).components)
    report["autoencoders"] += autoencoders(f"{args.category.name}, last layer", layers[-1], k)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
