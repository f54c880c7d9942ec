"""Which photos show the same scene: bursts, several exposures of one part, near-copies.

Such photos must sit in the same fold, or held-out errors say nothing about the next part.

Up to `MOST_AT_ONCE` photos are compared each with each. A longer stream goes through `SceneStream`:
within each block of photos as before; a scene of the block then joins the one of the last
`REMEMBERED` scenes whose first photo is nearest, if that is near enough, by the cosine of random
projections. So a burst is found wherever it begins; near-copies that come more than `REMEMBERED`
scenes apart are taken for different parts.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from fre_edge.strategies.base import Features, Floats, products
from fre_runtime.groups import Groups, GroupTable

FOLDS = 5
MOST_AT_ONCE = 4096
"""Photos whose similarities are looked at all together."""
BLOCK = 256
"""Photos of a stream that are looked at together."""
REMEMBERED = 2048
"""Scenes of a stream that later photos are compared with."""
BUCKETS = 256
"""Length of a random projection: cosines of unlike photos come out within about 1/16 of theirs."""

CUT = 0.65
"""Average cosine of centred features above which two clusters are one scene."""


def automatic_groups(matrix: Floats, cut: float = CUT) -> Groups:
    """Cluster images by average linkage on the cosine of their centred features.

    Parameters
    ----------
    matrix
        Gram matrix of the centred features of one layer, (N, N); it holds every cosine.
    cut
        Smallest average cosine inside a group.
    """
    norms = np.sqrt(np.maximum(np.diag(matrix), np.finfo(np.float64).tiny))
    distance = np.maximum(1.0 - matrix / np.outer(norms, norms), 0.0)
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average")
    return np.asarray(fcluster(tree, t=1.0 - cut, criterion="distance"), np.int64) - 1


def photo_gram(matrix: Floats, tiles: Groups) -> Floats:
    """From the Gram matrix of tiles to that of the photos that they were cut from, centred.

    Where all photos have the same tiles, a photo is its tiles side by side: near-copies agree at
    each place. Otherwise it is their mean.

    Parameters
    ----------
    matrix
        Gram matrix of the centred features of all tiles, (T, T).
    tiles
        Photo of each tile, (T,), 0..N-1; tiles of one photo follow each other.

    Returns
    -------
    float64 (N, N); ``matrix`` itself where each photo is one tile.
    """
    counts = np.bincount(tiles)
    count = len(counts)
    if (counts == 1).all():
        return matrix
    if (counts == counts[0]).all():
        each = matrix.reshape(count, counts[0], count, counts[0])
        photos = np.einsum("atbt->ab", each)
    else:
        starts = np.cumsum(counts) - counts
        sums = np.add.reduceat(np.add.reduceat(matrix, starts, 0), starts, 1)
        photos = sums / np.outer(counts, counts)
    mean = photos.mean(0)
    return np.asarray(photos - mean - mean[:, None] + mean.mean())


class SceneStream:
    """Finds the scene of each photo of a stream, a block at a time; see the module.

    Parameters
    ----------
    dimension
        D of the layer that scenes are told apart by.
    groups
        ``auto``, ``none``, or the path of a table, as in `FitOptions`.
    """

    def __init__(self, dimension: int, groups: str) -> None:
        self.count = 0
        self._auto = groups == "auto"
        self._table = None if groups in ("auto", "none") else GroupTable.read(Path(groups))
        self._labels: dict[str, int] = {}
        rng = np.random.default_rng(0)
        self._order = rng.permutation(dimension)
        self._signs = rng.choice(np.array([-1, 1], np.float32), dimension)
        self._starts = np.linspace(0, dimension, min(BUCKETS, dimension), endpoint=False).astype(
            int
        )
        self._leaders = np.empty((0, len(self._starts)), np.float32)
        self._numbers = np.empty(0, np.int64)

    def find(self, photos: list[Path], features: Features, mean: Floats) -> Groups:
        """Number the scenes of a block of photos, going on from the earlier ones.

        Parameters
        ----------
        photos
            Their paths.
        features
            float32 (n, D).
        mean
            Mean of all features so far, (D,).
        """
        if self._table is not None:
            labels = [self._table.label(photo) for photo in photos]
            known = [self._labels.setdefault(label, len(self._labels)) for label in labels]
            self.count = len(self._labels)
            return np.array(known, np.int64)
        if not self._auto:
            self.count += len(photos)
            return np.arange(self.count - len(photos), self.count)
        alone = len(photos) == 1
        local = np.zeros(1, np.int64) if alone else automatic_groups(products(features, mean))
        _, first, inverse = np.unique(local, return_index=True, return_inverse=True)
        centre = self._project(mean[None])
        return self._join(self._project(features[first]), centre)[inverse]

    def _join(self, leaders: Features, centre: Features) -> Groups:
        """Number new scenes by their first photos: as the nearest earlier one, or anew."""
        numbers = np.full(len(leaders), -1)
        if len(self._leaders):
            cosines = _unit(leaders - centre) @ _unit(self._leaders - centre).T
            nearest = cosines.argmax(1)
            near = cosines[np.arange(len(leaders)), nearest] >= CUT
            numbers[near] = self._numbers[nearest[near]]
        new = numbers < 0
        numbers[new] = np.arange(self.count, self.count + new.sum())
        self.count += int(new.sum())
        self._leaders = np.concatenate([self._leaders, leaders[new]])[-REMEMBERED:]
        self._numbers = np.concatenate([self._numbers, numbers[new]])[-REMEMBERED:]
        return numbers

    def _project(self, features: Floats | Features) -> Features:
        """Sum columns with random signs into buckets, float32 (n, buckets)."""
        signed = features[:, self._order] * self._signs
        return np.add.reduceat(signed, self._starts, axis=1).astype(np.float32)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What has been seen, to be given to `restore`."""
        labels = json.dumps(self._labels).encode()
        return {
            "leaders": self._leaders,
            "numbers": self._numbers,
            "labels": np.frombuffer(labels, np.uint8),
            "count": np.array([self.count]),
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `tensors`."""
        self._leaders, self._numbers = tensors["leaders"], tensors["numbers"]
        self._labels = json.loads(tensors["labels"].tobytes())
        self.count = int(tensors["count"][0])


def _unit(rows: Features) -> Features:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, np.finfo(np.float32).tiny), np.float32)


def make_folds(groups: Groups, folds: int, seed: int) -> list[NDArray[np.int64]]:
    """Split image indices into at most ``folds`` parts of like size, no group in two of them."""
    shuffled = np.random.default_rng(seed).permutation(np.unique(groups))
    sizes = {group: int((groups == group).sum()) for group in shuffled}
    parts: list[list[int]] = [[] for _ in range(min(folds, len(shuffled)))]
    loads = [0] * len(parts)
    for group in sorted(shuffled, key=lambda g: -sizes[g]):  # large ones first
        smallest = loads.index(min(loads))
        parts[smallest].append(group)
        loads[smallest] += sizes[group]
    return [np.flatnonzero(np.isin(groups, part)) for part in parts]
