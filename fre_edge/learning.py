"""From features to a calibrated model: subspaces, fusion, expected errors, thresholds."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fre_edge.expectation import Expectation, fit_expectation, look
from fre_edge.features import FeatureShape
from fre_edge.fusion import Fusion, fuse_maps, held_out_fusion
from fre_edge.grouping import (
    BLOCK,
    FOLDS,
    MOST_AT_ONCE,
    SceneStream,
    automatic_groups,
    make_folds,
    photo_gram,
)
from fre_edge.options import FitOptions
from fre_edge.partition import Divided, partition_of
from fre_edge.state import State
from fre_edge.strategies.base import Floats, Rank, Rows, Strategy, Subspace
from fre_edge.strategies.incremental import subspaces_without
from fre_edge.strategies.sketch import merge
from fre_runtime.calibration import Calibration
from fre_runtime.conformal import calibrate
from fre_runtime.errors import DataError
from fre_runtime.groups import Groups, GroupTable

log = logging.getLogger(__name__)


class Learned(NamedTuple):
    """What comes out of the features."""

    subspaces: list[list[Subspace]]
    """Of each layer, one for each part of its partition."""
    fusion: Fusion
    expectation: Expectation | None
    calibration: Calibration
    state: State
    """With the scenes and folds that were found."""
    held_out_scores: Floats
    """S of each kept row under a subspace fitted without its fold, (n,); of tiles the largest of
    each photo."""


def learn(
    state: State,
    shapes: Sequence[FeatureShape],
    photos: Sequence[Path],
    options: FitOptions,
    strategy: Strategy,
) -> Learned:
    """Fit and calibrate.

    Parameters
    ----------
    state
        Of all photos. What its sketches hold is fitted as `Incremental` does, all else by
        ``strategy``; scenes are found where the state has none.
    shapes
        Feature shape of each layer.
    photos
        What ``state.photos`` points to; for a table of groups.
    options
        For layers, rank, score, groups, false-reject rate and seed.

    Raises
    ------
    DataError
        When the features do not vary, or are too few.
    """
    ranks = ranks_of(options)
    if state.complete:
        state, subspaces, maps, parts = _complete(state, shapes, photos, options, strategy, ranks)
    else:
        found, maps, parts = _sketched(state, shapes, ranks)
        subspaces = [[subspace] for subspace in found]
    for rank, layer in zip(ranks, subspaces, strict=True):
        for subspace in layer:
            _say_how_exact(subspace)
            if not state.complete and len(subspace.components) != rank.bound:
                _warn_of_small_sketch(subspace, rank)
    fusion, scores, maxima = held_out_fusion(maps, list(shapes), options.score)
    expectation = None
    if options.relative:
        expectation, expected = _expect(scores, state, shapes, subspaces)
        scores, maxima = scores / expected, maxima / expected
    scores, calibration = _calibrate(scores, maxima, state, options, parts)
    return Learned(subspaces, fusion, expectation, calibration, state, scores)


def ranks_of(options: FitOptions) -> list[Rank]:
    """How many components each layer of ``options`` gets."""
    limits = options.max_components or {}
    return [
        Rank(options.variance, options.components, limits.get(layer)) for layer in options.layers
    ]


def recalibrate(
    known: Learned,
    shown: State,
    shapes: Sequence[FeatureShape],
    options: FitOptions,
    strategy: Strategy,
) -> Learned:
    """Calibrate for features that differ by no more than rounding from those that were fitted.

    Subspaces, fusion and expected errors stay. The held-out photos are judged by what they are in
    ``shown``, under subspaces fitted without their fold.

    Parameters
    ----------
    known
        What was learned of a state that is complete.
    shown
        The same photos, as the other backbone sees them.
    shapes, options, strategy
        As for `learn`.
    """
    state = known.state
    assert state.complete
    assert state.folds is not None
    folds = [np.flatnonzero(state.folds == fold) for fold in np.unique(state.folds)]
    maps = []
    ranks = ranks_of(options)
    for layer, other, shape, rank in zip(state.kept, shown.kept, shapes, ranks, strict=True):
        divided = Divided(strategy, partition_of(options.subspace, shape))
        vectors, others = (list(divided.partition.rows(Rows(x))) for x in (layer, other))
        maps.append(divided.held_out(vectors, folds, rank, others))
    scores, maxima = fuse_maps(maps, shapes, known.fusion, options.score)
    if known.expectation is not None:
        seen = replace(state, kept=shown.kept)
        _, expected = _expect(scores, seen, shapes, known.subspaces)
        scores, maxima = scores / expected, maxima / expected
    scores, calibration = _calibrate(scores, maxima, state, options, len(folds))
    return known._replace(calibration=calibration, held_out_scores=scores)


def _expect(
    scores: Floats,
    state: State,
    shapes: Sequence[FeatureShape],
    subspaces: Sequence[Sequence[Subspace]],
) -> tuple[Expectation, Floats]:
    assert state.folds is not None
    looks = look(state.kept[0], shapes[0], subspaces[0])
    return fit_expectation(scores, looks, state.folds, state.scenes)


def _calibrate(
    scores: Floats, maxima: Floats, state: State, options: FitOptions, parts: int
) -> tuple[Floats, Calibration]:
    """Also the scores of photos, where those given are of tiles."""
    groups = state.groups
    assert groups is not None
    if options.view.tile:  # a photo is as bad as its worst tile, and counts once
        first = np.unique(state.photos, return_index=True)[1]
        scores, maxima = (np.maximum.reduceat(values, first) for values in (scores, maxima))
        groups = groups[first]
    source = "held-out training photos"
    return scores, calibrate(scores, maxima, groups, options.fpr, parts, source)


def _complete(
    state: State,
    shapes: Sequence[FeatureShape],
    photos: Sequence[Path],
    options: FitOptions,
    strategy: Strategy,
    ranks: Sequence[Rank],
) -> tuple[State, list[list[Subspace]], list[Floats], int]:
    """Also the state with its scenes and folds, and how many folds there are."""
    subspaces, maps = [], []
    folds: list[np.ndarray] = []
    for layer, shape, rank in zip(state.kept, shapes, ranks, strict=True):
        rows = Rows(layer)
        divided = Divided(strategy, partition_of(options.subspace, shape))
        vectors = list(divided.partition.rows(rows))
        subspaces.append(divided.fit(vectors, rank))
        if not folds:  # the shallowest layer tells scenes apart best; the cut was measured there
            groups = state.groups
            if groups is None:
                found = find_groups(rows, photos, options, state.photos)
                warn_of_weak_folds(found)
                groups = found[state.photos] if options.view.tile else found
            # Photos that all show one scene are held out one by one, for want of anything better.
            alone = state.photos if options.view.tile else np.arange(len(groups))
            units = groups if len(np.unique(groups)) > 1 else alone
            folds = make_folds(units, FOLDS, options.seed)
            fold_of = np.empty(len(groups), np.int64)
            for number, fold in enumerate(folds):
                fold_of[fold] = number
            scenes = len(np.unique(groups))
            state = replace(state, groups=groups, folds=fold_of, scenes=scenes)
        maps.append(divided.held_out(vectors, folds, rank))
    return state, subspaces, maps, len(folds)


def _sketched(
    state: State, shapes: Sequence[FeatureShape], ranks: Sequence[Rank]
) -> tuple[list[Subspace], list[Floats], int]:
    assert state.folds is not None
    used = [fold for fold in range(FOLDS) if state.sketches[0][fold].count]
    if len(used) < 2:
        raise DataError(
            f"all {state.count} photos show one scene, and nothing is left to hold out: add photos "
            "of other parts, or say with --groups none that they are different ones"
        )
    subspaces, maps = [], []
    layers = zip(state.kept, shapes, state.sketches, ranks, strict=True)
    for layer, shape, every, rank in layers:
        sketches = [every[fold] for fold in used]
        subspaces.append(merge(sketches).subspace(rank))
        found = np.empty((len(layer), shape.height, shape.width))
        for fold, subspace in zip(used, subspaces_without(sketches, rank), strict=True):
            held_out = state.folds == fold
            found[held_out] = subspace.error_maps(layer[held_out], shape)
        maps.append(found)
    return subspaces, maps, len(used)


def find_groups(
    rows: Rows, photos: Sequence[Path], options: FitOptions, photo_of: Groups | None = None
) -> Groups:
    """Scene of each photo, as ``options.groups`` asks; see `fre_edge.grouping`.

    ``photo_of`` tells the photo of each row, where rows are tiles.
    """
    tiled = photo_of is not None and bool(options.view.tile)
    if options.groups == "none":
        return np.arange(len(photos) if tiled else len(rows))
    if options.groups != "auto":
        groups = GroupTable.read(Path(options.groups)).assign(list(photos))
    elif tiled and photo_of is not None:
        groups = automatic_groups(photo_gram(rows.gram[1], photo_of))
    elif len(rows) <= MOST_AT_ONCE:
        groups = automatic_groups(rows.gram[1])
    else:
        stream, mean = SceneStream(rows.dimension, "auto"), rows.mean()
        blocks = (stream.find([Path()] * len(b), b, mean) for b in rows.batches(BLOCK))
        groups = np.concatenate(list(blocks))
    log.info("%d photos show %d distinct scenes", len(groups), len(np.unique(groups)))
    return groups


def _say_how_exact(subspace: Subspace) -> None:
    k = len(subspace.components)
    if subspace.shortfall > 0:
        log.info(
            "%d components hold %.2f%% of the variance; the best %d could hold %.2f%% more at most",
            k,
            100 * subspace.captured,
            k,
            100 * subspace.shortfall,
        )


def _warn_of_small_sketch(subspace: Subspace, rank: Rank) -> None:
    if subspace.captured < rank.variance - 1e-3:
        log.warning(
            "the subspace holds %.1f%% of the variance, %.1f%% were asked for: the sketch has no "
            "room for more. Ask for --components K to have room for K",
            100 * subspace.captured,
            100 * rank.variance,
        )


def warn_of_weak_folds(groups: Groups) -> None:
    """Say what thresholds are worth that rest on few scenes."""
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
