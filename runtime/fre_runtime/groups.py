"""Which photos show the same scene, as the user tells it or as thumbnails do.

Bursts and near-copies must count once, or a few parts pass for many.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fre_runtime.errors import DataError
from fre_runtime.image import Image

Groups = NDArray[np.int64]
"""Group number of each image, (N,)."""


@dataclass(frozen=True)
class GroupTable:
    """Groups that the user gives: a CSV file with the columns ``file`` and ``group``.

    ``file`` is a photo's name, or the end of its path where names repeat.
    """

    path: Path
    group_of: dict[str, str]
    used: dict[str, Path] = field(default_factory=dict)
    """The image that each name was found to mean."""

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
        labels = [self.label(image) for image in images]
        return np.unique(labels, return_inverse=True)[1].astype(np.int64)

    def label(self, image: Path) -> str:
        """Return the label of an image's group; raises as `assign` does."""
        tails = ("/".join(image.parts[-n:]) for n in range(len(image.parts), 0, -1))
        name = next((tail for tail in tails if tail in self.group_of), None)
        if name is None:
            raise DataError(f"{self.path}: gives no group for {image}; add a line for it")
        if self.used.setdefault(name, image) != image:
            raise DataError(
                f"{self.path}: {name} means both {self.used[name]} and {image}; add their folders"
            )
        return self.group_of[name]


CUT = 0.9
"""Cosine of two photos' centred thumbnails from which they show one scene."""


def thumbnail(image: Image, side: int) -> NDArray[np.float32]:
    """The grey picture of a uint8 (H, W, 3) image at ``side`` x ``side``, flat, its light removed.

    float32 (side * side,) of mean 0 and length 1: other exposures of a scene give the same.
    """
    grey = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA
    )
    flat = grey.astype(np.float32).ravel()
    flat -= flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), np.float32)


def thumbnail_groups(thumbnails: Sequence[NDArray[np.float32]], cut: float = CUT) -> Groups:
    """Put photos into one scene that look alike but for the light, or through others that do.

    What all photos have in common is subtracted first: parts of one kind look alike as a whole, and
    only copies of one part share what is its own. That is coarser than what fre-export does with
    the features, and sees bursts and several exposures of one part.

    Parameters
    ----------
    thumbnails
        `thumbnail` of each photo, or of its tiles side by side; those of another length are
        another scene.
    cut
        Least cosine.
    """
    groups = np.arange(len(thumbnails))
    lengths = np.array([len(one) for one in thumbnails])
    for length in np.unique(lengths):
        members = np.flatnonzero(lengths == length)
        stack = np.stack([thumbnails[i] for i in members.tolist()])
        stack -= stack.mean(0)
        stack /= np.maximum(np.linalg.norm(stack, axis=1, keepdims=True), 1e-6)
        for row, member in enumerate(members):
            near = members[:row][stack[:row] @ stack[row] >= cut]
            met = np.unique(groups[near])
            groups[np.isin(groups, met)] = groups[member]
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)
