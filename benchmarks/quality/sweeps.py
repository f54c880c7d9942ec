"""One choice changed at a time, everything else at its default: what each is worth.

The photos go through a backbone once (see `features`); fit, fusion, calibration and scores are
those of `fre_edge`, and the figures those of fre-eval.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.quality.data import Category
from benchmarks.quality.features import Features, Store, refitted, template
from benchmarks.quality.splits import Split, draw
from benchmarks.quality.summary import Row
from fre_edge import Fit, FitOptions, options
from fre_edge.backbones import backbone_spec
from fre_edge.grouping import CUT, automatic_groups
from fre_runtime.conformal import conformal_quantile
from fre_runtime.files import labelled_images
from fre_runtime.image import read_image, read_mask
from fre_runtime.metrics import PixelMetrics, auroc, average_precision, f1_max
from fre_runtime.ordered import ordered_map
from fre_runtime.progress import track
from fre_runtime.result import Result
from fre_runtime.threads import default_threads

DEFAULT = FitOptions(fpr=0.05)
VARIANCES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.95, 0.97, 0.99)
POOLS = (1, 2, 4)
BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
"""Those whose weights are packages."""
TAPS = ("blocks.2", "blocks.3", "blocks.4", "blocks.5.2", "blocks.5")
LAYERS = (
    *((tap,) for tap in TAPS),
    ("blocks.3", "blocks.4"), ("blocks.3", "blocks.5.2"), ("blocks.4", "blocks.5.2"),
    ("blocks.2", "blocks.3", "blocks.4"), ("blocks.3", "blocks.4", "blocks.5.2"),
)  # fmt: skip
AFTER_FEATURES = (
    "method", "subspace", "variance", "components", "max_components", "score", "relative",
    "groups", "fpr",
)  # fmt: skip
UNLIMITED: dict[str, Any] = {"max_components": {}}
SLOW = ("method",)
"""Sweeps on the given split alone: autoencoders take minutes."""
CUTS = (None, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
RATES = (0.01, 0.05)


@dataclass(frozen=True)
class Point:
    """One way to fit: the defaults but for ``changes``."""

    sweep: str
    label: str
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> FitOptions:
        """What to fit."""
        return replace(DEFAULT, **self.changes)


def points(*, quick: bool = False) -> dict[str, list[Point]]:
    """All points by sweep; those of ``method`` are what `FitOptions` offers."""
    layers = dict.fromkeys((default_layers(), *LAYERS))
    swept = {
        "variance": ("variance", VARIANCES[::4] if quick else VARIANCES),
        "score": ("score", options.SCORES),
        "layers": ("layers", list(layers)[::5] if quick else layers),
        "pool": ("pool", POOLS[1:] if quick else POOLS),
        "pool_overlap": ("pool_overlap", (default_overlap(), ())),
        "max_components": ("max_components", (default_limits(), {})),
        "relative": ("relative", (True, False)),
        "subspace": ("subspace", ("whole", "regions", "local")),
        "backbone": ("backbone", BACKBONES[:2] if quick else BACKBONES),
        "method": ("method", [method for method in options.METHODS if method != "auto"]),
    }
    found = {
        name: [Point(name, _label(value), {key: value}) for value in values]
        for name, (key, values) in swept.items()
    }
    # How little k matters is told of all layers, so none is limited there.
    free = [replace(point, changes=point.changes | UNLIMITED) for point in found["variance"]]
    return found | {"variance": free}


def default_layers() -> tuple[str, ...]:
    """The taps of the default backbone."""
    return DEFAULT.layers or backbone_spec(DEFAULT.backbone).layers


def default_overlap() -> tuple[str, ...]:
    """The taps of the default backbone whose pooling windows overlap."""
    return backbone_spec(DEFAULT.backbone).overlap


def default_limits() -> dict[str, int]:
    """The taps of the default backbone that have a limit of components, and which."""
    return backbone_spec(DEFAULT.backbone).max_components


def _label(value: object) -> str:
    if isinstance(value, dict):
        value = tuple(f"{layer}: {most}" for layer, most in value.items())
    if isinstance(value, tuple):
        return " + ".join(value) or "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def extraction(wanted: FitOptions) -> FitOptions:
    """``wanted`` without what only matters after the features: equal ones share them."""
    spec = backbone_spec(wanted.backbone)
    layers = wanted.layers or spec.layers
    overlap = spec.overlap if wanted.pool_overlap is None else wanted.pool_overlap
    return replace(
        wanted,
        layers=layers,
        pool=wanted.pool or spec.pool,
        pool_overlap=tuple(layer for layer in overlap if layer in layers),
        **{name: getattr(DEFAULT, name) for name in AFTER_FEATURES},
    )


@dataclass(frozen=True)
class TestPhoto:
    """What fre-eval knows of a photo, read once."""

    is_defective: bool
    size: tuple[int, int]
    mask: np.ndarray | None
    """Pixels of the defect, bool (H, W); None where nobody marked them."""


@dataclass
class Bench:
    """One category, ready for any point of any sweep."""

    category: Category
    store: Store
    _templates: dict[str, Fit] = field(default_factory=dict, repr=False)
    _extracted: dict[str, Features] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Read sizes and masks."""
        folder, split = self.category.folder, self.category.split
        self.photos = {path: TestPhoto(False, _size(path), None) for path in split.good}
        for image in labelled_images(folder):
            if image.is_defective:
                mask = None if image.mask is None else read_mask(image.mask)
                self.photos[image.path] = TestPhoto(True, _size(image.path), mask)
        self.defective = [path for path, photo in self.photos.items() if photo.is_defective]

    def base(self, wanted: FitOptions) -> Fit:
        """A fit that extracts what ``wanted`` asks for."""
        key = extraction(wanted)
        name = repr(key)
        if name not in self._templates:
            self._templates[name] = template(key, self.category.split.good)
        return self._templates[name]

    def features(self, wanted: FitOptions) -> Features:
        """Features that hold the layers of ``wanted``: one pass serves most sweeps."""
        key = extraction(wanted)
        if key == extraction(replace(DEFAULT, layers=key.layers)):
            taps = tuple(dict.fromkeys((*TAPS, *default_layers())))
            key = extraction(replace(DEFAULT, layers=taps))
        name = repr(key)
        if name not in self._extracted:
            self._extracted[name] = self.store.get(self.base(key), list(self.photos))
        return self._extracted[name]

    def prepare(self, wanted: Sequence[Point]) -> None:
        """Build backbones and extract: torch's tracing of a backbone bears no other thread."""
        for point in wanted:
            self.base(point.options)
            self.features(point.options)

    def fitted(self, wanted: FitOptions, split: Split, cut: float = CUT) -> Fit:
        """Fit ``wanted`` to the training photos of ``split``, scenes found at ``cut``."""
        base, features = self.base(wanted), self.features(wanted)
        known = set(features.photos)
        photos = [path for path in split.train if path in known]
        rows = features.rows(base.backbone.layers, photos)
        if wanted.groups == "none":
            groups = np.arange(len(photos))
        else:
            groups = automatic_groups(_gram(rows[0]), cut)
        return refitted(base, wanted, photos, rows, groups)

    def scored(self, fitted: Fit, split: Split) -> tuple[list[Path], np.ndarray, np.ndarray]:
        """Test photos, their raw scores (N,) and their calibrated maps (N, h, w)."""
        features = self.features(fitted.options)
        known = set(features.photos)
        paths = [path for path in (*split.test, *self.defective) if path in known]
        with torch.inference_mode():
            maps = fitted.head()(_taps(fitted, paths, features)).anomaly_map
        return paths, raw_scores(fitted, paths, features), maps[:, 0].numpy()


def raw_scores(fitted: Fit, paths: Sequence[Path], features: Features) -> np.ndarray:
    """Raw scores of some photos, float64 (N,)."""
    with torch.inference_mode():
        scores, _ = fitted.head().raw(_taps(fitted, paths, features))
    return np.asarray(scores.numpy(), np.float64)


def _taps(fitted: Fit, paths: Sequence[Path], features: Features) -> list[torch.Tensor]:
    """What the head takes."""
    rows = features.rows(fitted.backbone.layers, paths)
    return [
        torch.from_numpy(layer).reshape(-1, *shape)
        for layer, shape in zip(rows, fitted.shapes, strict=True)
    ]


def _size(path: Path) -> tuple[int, int]:
    height, width = read_image(path).shape[:2]
    return height, width


def _gram(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(0, dtype=np.float64)
    return np.asarray(centred @ centred.T)


def figures(bench: Bench, paths: Sequence[Path], scores: np.ndarray, maps: np.ndarray) -> Row:
    """The figures of fre-eval."""
    photos = [bench.photos[path] for path in paths]
    labels = np.array([photo.is_defective for photo in photos])
    found: Row = {
        "image_auroc": auroc(scores, labels),
        "image_ap": average_precision(scores, labels),
        "image_f1_max": f1_max(scores, labels),
        "pixel_auroc": None,
        "aupro": None,
    }
    if any(photo.mask is not None for photo in photos):
        pixels = PixelMetrics()
        for photo, native in zip(photos, maps, strict=True):
            if photo.is_defective and (photo.mask is None or not photo.mask.any()):
                continue
            lifted = Result(0.0, 0.0, "good", photo.size, native).anomaly_map
            mask = np.zeros(photo.size, bool) if photo.mask is None else photo.mask
            pixels.add(lifted / (np.float32(1) - lifted), mask)
        found |= {"pixel_auroc": pixels.auroc(), "aupro": pixels.aupro()}
    return found


def swept(bench: Bench, wanted: Sequence[tuple[Point, int]]) -> Iterator[Row]:
    """One row for each point and draw."""

    def measured(one: tuple[Point, int]) -> Row:
        point, seed = one
        split = draw(bench.category.split, seed, bench.category.group_of)
        fitted = bench.fitted(point.options, split)
        subspaces = [subspace for parts in fitted.subspaces for subspace in parts]
        return {
            "sweep": point.sweep,
            "label": point.label,
            "data": bench.category.name,
            "seed": seed,
            "k": [len(subspace.components) for subspace in subspaces],
            "captured": [subspace.captured for subspace in subspaces],
            "mib": sum(subspace.components.size for subspace in subspaces) / 2**20,
            **figures(bench, *bench.scored(fitted, split)),
        }

    bench.prepare([point for point, _ in wanted])
    workers = default_threads()
    # A fit is many small products: threads of BLAS would mostly wait for each other.
    with threadpool_limits(1):
        yield from ordered_map(measured, wanted, workers, workers, lambda: torch.set_num_threads(1))


def cut_rows(bench: Bench) -> Iterator[Row]:
    """What grouping the training photos at each cut does to the thresholds, for each rate."""
    split = bench.category.split
    for cut in CUTS:
        alone = cut is None
        wanted = replace(DEFAULT, groups="none") if alone else DEFAULT
        fitted = bench.fitted(wanted, split, CUT if alone else cut)
        paths, scores, _ = bench.scored(fitted, split)
        labels = np.array([bench.photos[path].is_defective for path in paths])
        for rate in RATES:
            tau = conformal_quantile(fitted.held_out_scores, fitted.groups, rate).value
            yield {
                "data": bench.category.name,
                "cut": cut,
                "scenes": fitted.scenes,
                "photos": len(fitted.photos),
                "fpr": rate,
                "false_reject_rate": float((scores > tau)[~labels].mean()),
                "detection_rate": float((scores > tau)[labels].mean()),
            }


def measure(
    categories: list[Category], names: Sequence[str], seeds: int, store: Store, *, quick: bool
) -> Row:
    """The sweeps in ``names`` on all categories."""
    chosen = {name: some for name, some in points(quick=quick).items() if name in names}
    wanted = [
        (point, seed)
        for name, some in chosen.items()
        for point in some
        for seed in range(1 if name in SLOW else seeds)
    ]
    rows: list[Row] = []
    cuts: list[Row] = []
    for category in categories:
        bench = Bench(category, store)
        rows += track(swept(bench, wanted), len(wanted), f"sweeps on {category.name}")
        if "cut" in names:
            cuts += cut_rows(bench)
    return {
        "default": {
            "backbone": DEFAULT.backbone,
            "layers": _label(default_layers()),
            "pool": str(DEFAULT.pool or backbone_spec(DEFAULT.backbone).pool),
            "variance": str(DEFAULT.variance),
            "score": DEFAULT.score,
            "pool_overlap": _label(default_overlap()),
            "max_components": _label(default_limits()),
            "relative": _label(DEFAULT.relative),
            "subspace": DEFAULT.subspace,
            "method": "pca",
        },
        "dates": dict.fromkeys(names, datetime.now(UTC).isoformat(timespec="seconds")),
        "results": rows,
        "cuts": cuts,
    }


def joined(old: Row, new: Row) -> Row:
    """``new`` with those sweeps of ``old`` that it does not hold.

    How many draws a sweep has, its rows tell.
    """
    kept = [row for row in old["results"] if row["sweep"] not in new["dates"]]
    cuts = new["cuts"] if "cut" in new["dates"] else old["cuts"]
    dates = {**old["dates"], **new["dates"]}
    return {**new, "dates": dates, "results": kept + new["results"], "cuts": cuts}


SWEEPS = (*points(), "cut")
