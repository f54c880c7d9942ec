"""Fitting FRE on a folder of photos of good parts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fre_edge.backbones import Backbone, build_backbone
from fre_edge.calibrate import calibrate
from fre_edge.extraction import extract, trunk_for
from fre_edge.features import FeatureExtractor, FeatureShape
from fre_edge.fre import FRE, Head
from fre_edge.fusion import Fusion, held_out_fusion
from fre_edge.grouping import Groups, GroupTable, automatic_groups, make_folds
from fre_edge.images import PhotoReader
from fre_edge.options import FitOptions
from fre_edge.strategies.base import Features, Floats, Rank, Rows, Strategy, Subspace
from fre_edge.strategies.pca import Pca
from fre_runtime.calibration import Calibration
from fre_runtime.errors import DataError
from fre_runtime.files import good_images

log = logging.getLogger(__name__)

FOLDS = 5


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
    skipped: dict[Path, str]
    """Files that were left out, with the reason."""

    @property
    def scenes(self) -> int:
        """Distinct scenes among the photos."""
        return len(np.unique(self.groups))

    def module(self, io: str = "uint8", lift_to: tuple[int, int] | None = None) -> FRE:
        """Return the deployable module; see `FRE` for its input and outputs."""
        return FRE(self.extractor(io), self.head(lift_to)).eval()

    def extractor(self, io: str = "uint8") -> FeatureExtractor:
        """Return the part up to the features."""
        return FeatureExtractor(self.backbone, self.pool, io).eval()

    def head(self, lift_to: tuple[int, int] | None = None) -> Head:
        """Return the part from the features on."""
        return Head(
            self.subspaces,
            self.shapes,
            self.fusion,
            self.options.score,
            self.calibration.image,
            self.calibration.pixel,
            lift_to,
        ).eval()

    def refit(self, features: list[Features]) -> "Fit":
        """The same fit on other features of the same photos: those of a quantised backbone.

        Subspaces, fusion and thresholds are learned anew, so that what quantisation does to the
        features of good photos counts as good; scenes stay as they were found.
        """
        learned = _learn(features, self.shapes, self.photos, self.options, self.groups)
        return replace(self, **learned._asdict())


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
        Bit for bit the same on one machine for the same photos and options.

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
    if options.groups not in ("auto", "none"):
        GroupTable.read(Path(options.groups))  # a bad file is found before the work
    backbone = build_backbone(options.backbone, options.layers, options.weights, options.seed)
    if options.weights == "random":
        log.warning("random weights: this model measures speed and detects nothing")
    size = options.size or (backbone.spec.size,) * 2
    extractor = FeatureExtractor(
        backbone, backbone.spec.pool if options.pool is None else options.pool
    )
    reader = PhotoReader(paths, *size)
    shapes = extractor.shapes(*size)
    photos, features = extract(trunk_for(extractor, size, len(paths)), reader, shapes)
    _check_photos(photos, reader, options)
    options = replace(options, layers=backbone.layers)

    learned = _learn(features, shapes, photos, options)
    fitted = Fit(
        options=options,
        backbone=backbone,
        size=size,
        pool=extractor.pool,
        shapes=shapes,
        photos=photos,
        skipped=reader.skipped,
        **learned._asdict(),
    )
    _warn_of_few_scenes(fitted)
    return fitted


class _Learned(NamedTuple):
    """What comes out of the features."""

    subspaces: list[Subspace]
    fusion: Fusion
    calibration: Calibration
    groups: Groups
    held_out_scores: Floats


def _learn(
    features: list[Features],
    shapes: list[FeatureShape],
    photos: list[Path],
    options: FitOptions,
    groups: Groups | None = None,
) -> _Learned:
    """Fit and calibrate on the features of each layer; ``groups`` are found unless given."""
    strategy: Strategy = Pca()
    rank = Rank(options.variance, options.components)
    subspaces, held_out, folds = [], [], []
    for layer, shape in zip(features, shapes, strict=True):
        rows = Rows(layer)
        subspaces.append(strategy.fit(rows, rank))
        if groups is None:  # the shallowest layer tells scenes apart best; the cut is its own
            groups = _groups(rows, photos, options)
            _warn_of_weak_folds(groups)
        # Photos that all show one scene are held out one by one, for want of anything better.
        units = groups if len(np.unique(groups)) > 1 else np.arange(len(groups))
        folds = make_folds(units, FOLDS, options.seed)
        held_out.append(strategy.held_out(rows, shape, folds, rank))
    assert groups is not None
    fusion, scores, maxima = held_out_fusion(held_out, shapes, options.score)
    calibration = calibrate(scores, maxima, groups, options.fpr, len(folds))
    return _Learned(subspaces, fusion, calibration, groups, scores)


def _groups(rows: Rows, photos: list[Path], options: FitOptions) -> Groups:
    if options.groups == "none":
        return np.arange(len(photos))
    if options.groups == "auto":
        groups = automatic_groups(rows.gram[1])
    else:
        groups = GroupTable.read(Path(options.groups)).assign(photos)
    log.info("%d photos show %d distinct scenes", len(photos), len(np.unique(groups)))
    return groups


def _warn_of_few_scenes(fitted: Fit) -> None:
    supported = fitted.calibration.fpr_supported
    if supported > fitted.options.fpr:
        log.warning(
            "%d scenes support a false-reject rate of %.3g at best, not %.3g; the threshold is "
            "the largest held-out score. That rate takes photos of %d different good parts",
            fitted.scenes,
            supported,
            fitted.options.fpr,
            int(np.ceil(1 / fitted.options.fpr)) - 1,
        )


def _check_photos(photos: list[Path], reader: PhotoReader, options: FitOptions) -> None:
    skipped = [f"{path}: {reason}" for path, reason in reader.skipped.items()]
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
    if reader.brightest < 16:
        log.warning(
            "no photo is brighter than %d of 255: 12-bit pixels in 16-bit files, which are divided "
            "by 256? Scale them to the full range first",
            reader.brightest,
        )
    if len(reader.sizes) > 1:
        log.info("photos have %d different sizes; all are stretched alike", len(reader.sizes))


def _warn_of_weak_folds(groups: Groups) -> None:
    scenes = len(np.unique(groups))
    if scenes == 1:
        log.warning(
            "all %d photos show one scene: held-out errors only tell how much it varies from shot "
            "to shot, so other good parts may well be rejected. Add photos of other parts",
            len(groups),
        )
    elif scenes < FOLDS:
        log.warning(
            "%d distinct scenes are fewer than %d folds: the thresholds rest on %d parts only and "
            "support no false-reject rate below %.2g. Add photos of other good parts",
            scenes,
            FOLDS,
            scenes,
            1 / (scenes + 1),
        )
