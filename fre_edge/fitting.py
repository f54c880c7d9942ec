"""Fitting FRE on a folder of photos of good parts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from fre_runtime.calibration import Calibration
from fre_runtime.errors import DataError, UsageError
from fre_runtime.files import good_images
from fre_runtime.progress import track

from fre_edge.backbones import DEFAULT_BACKBONE, Backbone, build_backbone
from fre_edge.calibrate import calibrate
from fre_edge.features import FeatureExtractor, FeatureShape
from fre_edge.fre import FRE, Fusion, finest_grid, fuse
from fre_edge.grouping import Groups, automatic_groups, groups_from_file, make_folds
from fre_edge.heldout import held_out_maps
from fre_edge.images import PhotoReader
from fre_edge.scores import SCORES, image_score
from fre_edge.subspace import Features, Floats, Rank, Subspace, fit_pca, gram

log = logging.getLogger(__name__)

FOLDS = 5
DEFAULT_VARIANCE = 0.92
DEFAULT_SCORE = "p3"


@dataclass(frozen=True)
class FitOptions:
    """What to fit; the defaults were chosen by measurement (see ``benchmarks/``)."""

    backbone: str = DEFAULT_BACKBONE
    layers: tuple[str, ...] = ()
    """Graph nodes to tap; empty = the backbone's own default."""
    weights: str = "auto"
    """``auto``, ``random`` (speed work only), or the path of a state dict."""
    size: tuple[int, int] | None = None
    """Height and width of the model's input; None = the backbone's own default."""
    pool: int | None = None
    """Side of the average-pooling window; None = the backbone's own default."""
    variance: float = DEFAULT_VARIANCE
    """Fraction of the variance that the subspace holds, in (0, 1]."""
    components: int | None = None
    """Number of components; overrides `variance`."""
    score: str = DEFAULT_SCORE
    groups: str = "auto"
    """``auto``, ``none``, or the path of a CSV file with the columns file,group."""
    fpr: float = 0.01
    """Target false-reject rate, in (0, 1)."""
    seed: int = 0
    strict: bool = False
    """Refuse unusable files instead of leaving them out."""

    def check(self) -> None:
        """Raise `UsageError` for a value out of range."""
        if self.score not in SCORES:
            raise UsageError(f"score {self.score!r} does not exist; choose {', '.join(SCORES)}")
        if not 0 < self.variance <= 1:
            raise UsageError(f"variance must be above 0 and at most 1, got {self.variance}")
        if not 0 < self.fpr < 1:
            raise UsageError(f"fpr must lie between 0 and 1, got {self.fpr}")
        if self.components is not None and self.components < 1:
            raise UsageError(f"components must be at least 1, got {self.components}")
        if self.pool is not None and self.pool < 1:
            raise UsageError(f"pool must be at least 1, got {self.pool}")
        if self.size is not None and not all(32 <= side <= 4096 for side in self.size):
            raise UsageError(f"size must lie in 32..4096 pixels, got {self.size}")


@dataclass(frozen=True)
class Fit:
    """A fitted model and what it was fitted on."""

    options: FitOptions
    backbone: Backbone
    size: tuple[int, int]
    pool: int
    shapes: list[FeatureShape]
    subspaces: list[Subspace]
    fusion: Fusion
    calibration: Calibration
    photos: list[Path]
    """The photos that were used, in order."""
    groups: Groups
    """Scene of each photo, (N,)."""
    held_out_scores: Floats
    """S of each photo under a subspace fitted without its fold, (N,)."""
    skipped: list[str]
    """Why other files were left out."""

    @property
    def scenes(self) -> int:
        """Distinct scenes among the photos."""
        return len(np.unique(self.groups))

    def module(self, io: str = "uint8", lift_to: tuple[int, int] | None = None) -> FRE:
        """Return the deployable module; see `FRE` for its input and outputs."""
        return FRE(
            FeatureExtractor(self.backbone, self.pool, io),
            self.subspaces,
            self.shapes,
            self.fusion,
            self.options.score,
            self.calibration.image,
            self.calibration.pixel,
            lift_to,
        ).eval()


def fit(images: str | Path | Sequence[Path], options: FitOptions | None = None) -> Fit:
    """Fit FRE on photos of good parts.

    Parameters
    ----------
    images
        A folder of good photos, an MVTec-layout category (its ``train/good`` is used), or a list
        of files.
    options
        What to fit; default: `FitOptions()`.

    Returns
    -------
    Fit
        Bit for bit the same on one machine for the same photos, options and thread count.

    Raises
    ------
    DataError
        When there are fewer than 2 usable photos, or they do not vary.
    UsageError
        When an option is out of range or names what does not exist.
    """
    options = options or FitOptions()
    options.check()
    paths = good_images(Path(images)) if isinstance(images, str | Path) else list(images)
    backbone = build_backbone(options.backbone, options.layers, options.weights, options.seed)
    if options.weights == "random":
        log.warning("random weights: this model measures speed and detects nothing")
    size = options.size or (backbone.spec.size,) * 2
    extractor = FeatureExtractor(
        backbone, backbone.spec.pool if options.pool is None else options.pool
    )
    reader = PhotoReader(paths, *size)
    photos, features, shapes = extract(extractor, reader)
    skipped = _check_photos(photos, reader, options)
    options = replace(options, layers=backbone.layers)

    grams = [gram(layer) for layer in features]
    rank = Rank(options.variance, options.components)
    subspaces = [
        fit_pca(layer, mean, matrix, rank)
        for layer, (mean, matrix) in zip(features, grams, strict=True)
    ]
    matrices = [matrix for _, matrix in grams]
    # Scenes look alike in the shallowest layer first; the cut was measured there.
    groups = _group(options.groups, matrices[0], photos)
    folds = _folds(groups, options)
    held_out = [
        held_out_maps(layer, matrix, shape, folds, rank)
        for layer, matrix, shape in zip(features, matrices, shapes, strict=True)
    ]
    fusion, scores, maxima = held_out_fusion(held_out, shapes, options.score)
    calibration = calibrate(scores, maxima, groups, options.fpr, len(folds))
    if calibration.fpr_supported > options.fpr:
        log.warning(
            "%d scenes support a false-reject rate of %.3g at best, not %.3g; the threshold is "
            "the largest held-out score. Add photos of at least %d different good parts",
            len(np.unique(groups)),
            calibration.fpr_supported,
            options.fpr,
            int(np.ceil(1 / options.fpr)) - 1,
        )
    return Fit(
        options,
        backbone,
        size,
        extractor.pool,
        shapes,
        subspaces,
        fusion,
        calibration,
        photos,
        groups,
        scores,
        skipped,
    )


@torch.inference_mode()
def extract(
    extractor: FeatureExtractor, reader: PhotoReader
) -> tuple[list[Path], list[Features], list[FeatureShape]]:
    """Run the photos through the backbone.

    One at a time: on a CPU that is twice as fast as batches of 16, whose activations leave the
    caches. Returns the photos used, one float32 (N, D) array for each layer, and the layers'
    shapes; memory beyond those arrays does not grow with N.
    """
    shapes = extractor.shapes(reader.height, reader.width)
    features = [np.empty((len(reader.paths), shape.dimension), np.float32) for shape in shapes]
    photos: list[Path] = []
    for path, image in track(reader, len(reader.paths), "extracting features"):
        for layer, u in zip(features, extractor(torch.from_numpy(image)[None]), strict=True):
            layer[len(photos)] = u.flatten()
        photos.append(path)
    used = [layer[: len(photos)] for layer in features]
    if not all(np.isfinite(layer).all() for layer in used):
        raise DataError("the backbone gives non-finite features; its weights are damaged")
    return photos, used, shapes


def _check_photos(photos: list[Path], reader: PhotoReader, options: FitOptions) -> list[str]:
    skipped = list(reader.skipped.values())
    for reason in skipped:
        log.warning("left out: %s", reason)
    if skipped and options.strict:
        raise DataError(
            f"{len(skipped)} of {len(reader.paths)} files cannot be used, and strict allows none; "
            f"the first: {skipped[0]}"
        )
    if len(photos) < 2:
        raise DataError(
            f"{len(photos)} usable photo{'s' * (len(photos) != 1)} among {len(reader.paths)} "
            "files, at least 2 different ones are needed (30 or more to be useful)"
            + (f"; the first problem: {skipped[0]}" if skipped else "")
        )
    if options.components is not None and options.components > len(photos) - 1:
        raise DataError(
            f"{options.components} components asked for, {len(photos)} photos give at most "
            f"{len(photos) - 1}; ask for fewer or add photos"
        )
    if len(reader.sizes) > 1:
        log.info("photos have %d different sizes; all are stretched alike", len(reader.sizes))
    return skipped


def _group(kind: str, matrix: Floats, photos: list[Path]) -> Groups:
    if kind == "none":
        return np.arange(len(photos))
    groups = automatic_groups(matrix) if kind == "auto" else groups_from_file(Path(kind), photos)
    log.info("%d photos show %d distinct scenes", len(photos), len(np.unique(groups)))
    return groups


def _folds(groups: Groups, options: FitOptions) -> list[np.ndarray]:
    scenes = len(np.unique(groups))
    if scenes == 1:
        log.warning(
            "all %d photos show one scene: held-out errors only tell how much it varies from shot "
            "to shot, so other good parts may well be rejected. Add photos of other parts",
            len(groups),
        )
        return make_folds(np.arange(len(groups)), FOLDS, options.seed)
    if scenes < FOLDS:
        log.warning(
            "%d distinct scenes are fewer than %d folds: the thresholds rest on %d parts only and "
            "support no false-reject rate below %.2g. Add photos of other good parts",
            scenes,
            FOLDS,
            scenes,
            1 / (scenes + 1),
        )
    return make_folds(groups, FOLDS, options.seed)


def held_out_fusion(
    maps: list[Floats], shapes: list[FeatureShape], score: str
) -> tuple[Fusion, Floats, Floats]:
    """Weigh the layers by their held-out means; return also each image's score and largest M."""
    tensors = [torch.from_numpy(layer)[:, None] for layer in maps]
    one = (1.0,) * len(maps)
    fusion = Fusion(one, one)
    if len(maps) > 1:
        fusion = Fusion(
            tuple(1.0 / float(m.mean()) for m in tensors),
            tuple(1.0 / float(image_score(m, score).mean()) for m in tensors),
        )
    scores, fused = fuse(tensors, fusion, score, finest_grid(shapes))
    return fusion, scores.numpy(), fused.amax((1, 2, 3)).numpy()
