"""Which photos show the same scene: bursts, several exposures of one part, near-copies.

Such photos must sit in the same fold, or held-out errors say nothing about the next part.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from fre_edge.strategies.base import Floats
from fre_runtime.errors import DataError

Groups = NDArray[np.int64]
"""Group number of each image, (N,)."""

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
    return np.asarray(fcluster(tree, t=1.0 - cut, criterion="distance"), np.int64)


@dataclass(frozen=True)
class GroupTable:
    """Groups that the user gives: a CSV file with the columns ``file`` and ``group``.

    ``file`` is a photo's name, or the end of its path where names repeat.
    """

    path: Path
    group_of: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "GroupTable":
        """Read the file; raises `DataError` when it cannot be read or contradicts itself."""
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = [(row["file"], row["group"]) for row in csv.DictReader(file)]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: cannot be read as CSV ({error})") from error
        except KeyError as error:
            raise DataError(f"{path}: has no column {error}; expected file,group") from None
        group_of: dict[str, str] = {}
        for name, group in rows:
            if not name or not group:
                raise DataError(f"{path}: the line of {name!r} lacks its file or its group")
            if group_of.setdefault(name, group) != group:
                raise DataError(f"{path}: puts {name} into both {group_of[name]} and {group}")
        return cls(path, group_of)

    def assign(self, images: list[Path]) -> Groups:
        """Return the group of each image; raises `DataError` where it is missing or ambiguous."""
        labels = []
        used: dict[str, Path] = {}
        for image in images:
            tails = ("/".join(image.parts[-n:]) for n in range(len(image.parts), 0, -1))
            name = next((tail for tail in tails if tail in self.group_of), None)
            if name is None:
                raise DataError(f"{self.path}: gives no group for {image}; add a line for it")
            if used.setdefault(name, image) != image:
                raise DataError(
                    f"{self.path}: {name} means both {used[name]} and {image}; add their folders"
                )
            labels.append(self.group_of[name])
        return np.unique(labels, return_inverse=True)[1].astype(np.int64)


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
