"""How a layer's feature tensor is divided into the vectors that subspaces are fitted to.

``whole``
    One vector an image, one subspace: the paper's, which knows what belongs where.
``regions:R``
    R x R windows of the grid, each with a subspace of its own; in between.
``local``
    One vector a cell, one subspace for all cells: a 1x1 convolution in the graph, which knows what
    belongs to the part, but not where. For textures, and for views that are not registered.

The strategies see rows and folds, the graph sees tensors of shape (M, C, height, width); what a
vector is stays in here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fre_edge.features import FeatureShape
from fre_edge.options import regions_of
from fre_edge.strategies.base import (
    DegenerateError,
    Features,
    Floats,
    Folds,
    Rank,
    Rows,
    Strategy,
    Subspace,
    check_finite,
    check_leaves_error,
)
from fre_edge.strategies.covariance import Covariance
from fre_edge.strategies.pca import Pca

Array = TypeVar("Array", Features, Tensor)


@dataclass(frozen=True)
class Part:
    """A window of the grid whose vectors share a subspace."""

    top: int
    bottom: int
    left: int
    right: int
    shape: FeatureShape
    """Of one vector: the window's, or (C, 1, 1) where each cell is a vector of its own."""

    def vectors(self, features: Array) -> Array:
        """From features (N, C, h, w) to vectors (M, C, height, width) of `shape`; M = N, or cells.

        Cells come image by image, row by row.
        """
        window = features
        if features.shape[2:] != (self.bottom - self.top, self.right - self.left):
            window = features[:, :, self.top : self.bottom, self.left : self.right]
        if not self.by_cell:
            return window
        return window.swapaxes(1, 2).swapaxes(2, 3).reshape(-1, *self.shape)

    @property
    def cells(self) -> int:
        """Cells of the window."""
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def by_cell(self) -> bool:
        """Whether each cell is a vector of its own."""
        return self.shape.height * self.shape.width < self.cells


@dataclass(frozen=True)
class PartRows(Rows):
    """The vectors of a part, read from the rows (N, D) of the whole layer as they are wanted.

    Attributes
    ----------
    part
        Whose vectors.
    layer
        Feature shape of the layer.
    """

    part: Part = field(kw_only=True)
    layer: FeatureShape = field(kw_only=True)

    def __len__(self) -> int:
        return len(self.array) * self._each if self.chosen is None else len(self.chosen)

    @property
    def dimension(self) -> int:
        """Numbers in one vector."""
        return self.part.shape.dimension

    def take(self, indices: NDArray[np.int64] | slice) -> Features:
        """Copy some vectors, float32 (n, dimension)."""
        every = np.arange(len(self.array) * self._each) if self.chosen is None else self.chosen
        images, cells = np.divmod(every[indices], self._each)
        distinct, place = np.unique(images, return_inverse=True)
        rows = self._vectors(np.asarray(self.array[distinct]))[place, cells]
        check_finite(rows)
        return rows

    def without(self, held_out: NDArray[np.int64]) -> "PartRows":
        """All vectors but those at ``held_out``."""
        every = np.arange(len(self)) if self.chosen is None else self.chosen
        return replace(self, chosen=np.delete(every, held_out))

    def whole(self) -> Features:
        """All vectors in memory."""
        if self.chosen is not None:
            return self.take(slice(None))
        return np.ascontiguousarray(self._vectors(self.array)).reshape(-1, self.dimension)

    @property
    def _each(self) -> int:
        """Vectors an image."""
        return self.part.cells if self.part.by_cell else 1

    def _vectors(self, images: Features) -> Features:
        """From rows (n, D) to (n, vectors an image, dimension)."""
        vectors = self.part.vectors(images.reshape(-1, *self.layer))
        return vectors.reshape(len(images), self._each, self.dimension)


@dataclass(frozen=True)
class Partition:
    """A division of the features of one layer; made by `partition_of`."""

    shape: FeatureShape
    regions: int
    """Windows a side."""
    by_cell: bool

    @cached_property
    def parts(self) -> list[Part]:
        """Row by row; one for each subspace."""
        parts = []
        for top, bottom in _split(self.shape.height, self.regions):
            for left, right in _split(self.shape.width, self.regions):
                sides = (1, 1) if self.by_cell else (bottom - top, right - left)
                shape = FeatureShape(self.shape.channels, *sides)
                parts.append(Part(top, bottom, left, right, shape))
        return parts

    def rows(self, rows: Rows) -> Iterator[Rows]:
        """The vectors of each part, from all rows (N, D) of the layer."""
        for part in self.parts:
            if part.shape == self.shape:
                yield rows
            else:
                yield PartRows(rows.array, part=part, layer=self.shape)

    def join(self, energies: Sequence[Tensor]) -> Tensor:
        """From values (M, cells of a vector) of each part to those of the layer, (N, h w)."""
        if len(energies) == 1 and not self.by_cell:
            return energies[0].flatten(1)
        windows = [
            energy.reshape(-1, part.bottom - part.top, part.right - part.left)
            for part, energy in zip(self.parts, energies, strict=True)
        ]
        across = len(_split(self.shape.width, self.regions))
        bands = [
            torch.cat(windows[i : i + across], 2) if across > 1 else windows[i]
            for i in range(0, len(windows), across)
        ]
        return (torch.cat(bands, 1) if len(bands) > 1 else bands[0]).flatten(1)


def partition_of(subspace: str, shape: FeatureShape) -> Partition:
    """The partition that the option ``subspace`` asks for."""
    return Partition(shape, regions_of(subspace), subspace == "local")


def _split(side: int, regions: int) -> list[tuple[int, int]]:
    """Cut a side into even windows; no more of them than cells."""
    count = min(regions, side)
    return [(i * side // count, (i + 1) * side // count) for i in range(count)]


@dataclass(frozen=True)
class Divided:
    """A strategy at work on each part of a layer.

    Attributes
    ----------
    strategy
        Fits one subspace; the exact PCA goes by the smaller of its two matrices.
    partition
        Says what the vectors are.
    """

    strategy: Strategy
    partition: Partition

    def fit(self, parts: Sequence[Rows], rank: Rank) -> list[Subspace]:
        """One subspace for each of ``parts``, as `Partition.rows` gives them."""
        try:
            subspaces = [self._suited(rows).fit(rows, rank) for rows in parts]
        except DegenerateError as error:
            if len(parts) == 1:
                raise
            raise DegenerateError(
                f"one of the {len(parts)} regions shows the same in all photos ({error}); is there "
                "a border, or padding? Take fewer regions, or --subspace whole"
            ) from error
        for subspace in subspaces:
            check_leaves_error(subspace)
        return subspaces

    def held_out(
        self,
        parts: Sequence[Rows],
        folds: Folds,
        rank: Rank,
        shown: Sequence[Rows] | None = None,
    ) -> Floats:
        """Map of each image under subspaces fitted without its fold, float64 (N, h, w).

        Parameters
        ----------
        parts
            As for `fit`.
        folds
            Indices of images.
        rank
            As for `fit`.
        shown
            The same images as another backbone sees them, to be judged in place of ``parts``.
        """
        maps = []
        for i, (part, rows) in enumerate(zip(self.partition.parts, parts, strict=True)):
            of_rows = [_rows_of(fold, part) for fold in folds]
            suited = self._suited(rows)
            others = None if shown is None else shown[i]
            found = suited.held_out(rows, part.shape, of_rows, rank, others)
            maps.append(torch.from_numpy(found))
        shape = self.partition.shape
        joined: Floats = self.partition.join(maps).numpy()
        return joined.reshape(-1, shape.height, shape.width)

    def _suited(self, rows: Rows) -> Strategy:
        primal = isinstance(self.strategy, Pca) and len(rows) > rows.dimension
        return Covariance() if primal else self.strategy


def _rows_of(images: np.ndarray, part: Part) -> np.ndarray:
    """Rows of a part that belong to ``images``."""
    if not part.by_cell:
        return images
    return (images[:, None] * part.cells + np.arange(part.cells)).ravel()
