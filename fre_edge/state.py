"""What is kept of the photos of a fit: enough to go on from without them.

As long as they are few, that is their features: whatever is fitted later on old and new photos is
fitted as if all had been there at once. Beyond `COMPLETE_BYTES`, it is a `Sketch` of each fold of
each layer, and the features of a random sample of photos, each with its fold. Sketches merge fold
by fold, samples in proportion to the photos that they stand for. A sampled photo is held out with
its fold, as ever: it is scored by the subspace of all other folds, old and new, which never saw it.
What merging cannot see are near-copies of one scene in two states: these may land in two folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_edge.grouping import FOLDS
from fre_edge.strategies.base import Features, Rank
from fre_edge.strategies.incremental import sketch_rows
from fre_edge.strategies.sketch import Sketch, Sketcher, merge
from fre_edge.tensors import Tensors, below, prefixed
from fre_runtime.groups import Groups

COMPLETE_BYTES = 2**27
"""Bytes of features up to which a saved state holds those of every photo."""
SAMPLE_BYTES = 2**28
"""Bytes of features of the sampled photos beyond that."""
FEWEST_SAMPLED, MOST_SAMPLED = 128, 2048


@dataclass(frozen=True)
class State:
    """See the module.

    Attributes
    ----------
    kept
        Features of each layer, float32 (n, D), of all photos or of the sampled ones.
    photos
        Which photo of this run each kept row is, or is a tile of; -1 for photos of earlier runs.
        int64 (n,).
    groups
        Scene of each kept row, int64 (n,); None until it has been found.
    folds
        Fold of each kept row, int64 (n,); None until it has been found.
    count
        Photos that the state stands for.
    scenes
        Distinct scenes among them.
    sketches
        Of each layer, one for each fold; empty where every photo is kept.
    """

    kept: list[Features]
    photos: NDArray[np.int64]
    groups: Groups | None
    folds: NDArray[np.int64] | None
    count: int
    scenes: int
    sketches: list[list[Sketch]]

    @classmethod
    def of(cls, features: list[Features], photos: NDArray[np.int64] | None = None) -> "State":
        """The state that keeps the features of each layer, float32 (N, D), of all photos.

        ``photos`` is given where rows are tiles: the photo of each, 0 and on.
        """
        if photos is None:
            photos = np.arange(len(features[0]))
        return cls(features, photos, None, None, int(photos[-1]) + 1 if len(photos) else 0, 0, [])

    def tensors(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """The same as arrays, all but `photos`, for layers that are called ``names``.

        Scenes and folds must have been found.
        """
        assert self.groups is not None
        assert self.folds is not None
        found: dict[str, NDArray[Any]] = {
            "groups": self.groups,
            "folds": self.folds,
            "count": np.array([self.count], np.int64),
            "scenes": np.array([self.scenes], np.int64),
        }
        for i, name in enumerate(names):
            found[f"{name}.kept"] = self.kept[i]
            for fold, sketch in enumerate(self.sketches[i] if self.sketches else []):
                found |= prefixed(f"{name}.sketch.{fold}", sketch.tensors())
        return found

    @classmethod
    def from_tensors(cls, tensors: Tensors, names: Sequence[str]) -> "State":
        """The inverse of `tensors`, its photos those of an earlier run."""
        kept = [tensors[f"{name}.kept"] for name in names]
        sketches = []
        if f"{names[0]}.sketch.0.rows" in tensors:
            for name in names:
                every = [below(f"{name}.sketch.{fold}", tensors) for fold in range(FOLDS)]
                sketches.append([Sketch.from_tensors(one) for one in every])
        return cls(
            kept,
            np.full(len(kept[0]), -1),
            tensors["groups"],
            tensors["folds"],
            int(tensors["count"][0]),
            int(tensors["scenes"][0]),
            sketches,
        )

    @property
    def complete(self) -> bool:
        """Whether the features of every photo are kept."""
        return not self.sketches

    @property
    def dimensions(self) -> list[int]:
        """D of each layer."""
        return [layer.shape[1] for layer in self.kept]

    def sketched(self, rank: Rank) -> "State":
        """The same in sketches and samples."""
        if not self.complete:
            return self
        assert self.folds is not None
        sketches: list[list[Sketch]] = []
        for layer in self.kept:
            sketches.append([])
            for fold in range(FOLDS):
                sketcher = Sketcher(layer.shape[1], sketch_rows(rank))
                rows = np.flatnonzero(self.folds == fold)
                for start in range(0, len(rows), sketcher.limit):
                    sketcher.add(np.asarray(layer[rows[start : start + sketcher.limit]]))
                sketches[-1].append(sketcher.sketch())
        return replace(self, sketches=sketches).sampled(most_sampled(self.dimensions), 0)

    def sampled(self, most: int, seed: int) -> "State":
        """The same with ``most`` kept rows at most."""
        if len(self.photos) <= most:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.photos), most, replace=False))
        assert self.groups is not None
        assert self.folds is not None
        return replace(
            self,
            kept=[np.asarray(layer[chosen]) for layer in self.kept],
            photos=self.photos[chosen],
            groups=self.groups[chosen],
            folds=self.folds[chosen],
        )

    def bounded(self, rank: Rank) -> "State":
        """The same in at most `COMPLETE_BYTES`, or in sketches."""
        size = 4 * max(self.count, len(self.photos)) * sum(self.dimensions)
        return self if size <= COMPLETE_BYTES else self.sketched(rank)


def most_sampled(dimensions: Sequence[int]) -> int:
    """Photos that are sampled where not all can be kept."""
    fitting = SAMPLE_BYTES // (4 * sum(dimensions))
    return min(max(fitting, FEWEST_SAMPLED), MOST_SAMPLED)


def stays_complete(states: Sequence[State], more: int = 0) -> bool:
    """Whether these states and so many photos more can be kept whole."""
    count = sum(state.count for state in states) + more
    size = 4 * count * sum(states[0].dimensions)
    return all(state.complete for state in states) and size <= COMPLETE_BYTES


def merge_states(states: Sequence[State], rank: Rank) -> State:
    """One state of all photos, such as several machines gathered.

    Complete while all are and `COMPLETE_BYTES` allow. Else fold by fold; of the kept rows each
    state gives a share that is in proportion to its photos.
    """
    if len(states) == 1:
        return states[0]
    if stays_complete(states):
        return _joined(states, [])
    count, dimensions = sum(state.count for state in states), states[0].dimensions
    states = [state.sketched(rank) for state in states]
    sketches = [
        [
            merge([state.sketches[layer][fold] for state in states], sketch_rows(rank))
            for fold in range(FOLDS)
        ]
        for layer in range(len(dimensions))
    ]
    # Rows per photo that the state with the thinnest sample can give, and that there is room for.
    share = min(most_sampled(dimensions) / count, *(len(s.photos) / s.count for s in states))
    thinned = [s.sampled(max(1, round(share * s.count)), seed) for seed, s in enumerate(states)]
    return _joined(thinned, sketches)


def _joined(states: Sequence[State], sketches: list[list[Sketch]]) -> State:
    groups, folds, scenes = [], [], 0
    for state in states:
        if state.groups is not None:
            groups.append(state.groups + scenes)
        if state.folds is not None:
            folds.append(state.folds)
        scenes += state.scenes
    return State(
        [np.concatenate(layers) for layers in zip(*(s.kept for s in states), strict=True)],
        np.concatenate([state.photos for state in states]),
        np.concatenate(groups) if len(groups) == len(states) else None,
        np.concatenate(folds) if len(folds) == len(states) else None,
        sum(state.count for state in states),
        scenes,
        sketches,
    )
