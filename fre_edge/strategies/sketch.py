"""The state that merges: what a few rows can say of any number of them.

A sketch of n rows X holds their number, their mean mu and a few rows B with
B^T B ~ Xc^T Xc, Xc = X - mu. Two sketches make one: the scatters add up, and so do the scatters of
the means about the common mean, n_i (mu_i - mu)(mu_i - mu)^T, a row each. Above a limit the rows
are cut to those of the largest singular values; what each cut throws away is a positive
semi-definite matrix, so that the errors only add up and are known:

    0 <= Xc^T Xc - B^T B,   its trace = `discarded`,   its largest eigenvalue <= `bound`.

A sketch that was never cut is exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_edge.strategies.base import (
    TILE,
    Features,
    Floats,
    Rank,
    Subspace,
    check_finite,
    check_varies,
    products,
)
from fre_edge.strategies.pca import directions, eigh_descending
from fre_runtime.errors import DataError


@dataclass(frozen=True)
class Sketch:
    """What is kept of ``count`` rows; see the module.

    Attributes
    ----------
    count
        n, rows that it stands for.
    mean
        mu, float64 (D,).
    rows
        B, float32 (r, D).
    discarded
        Trace of Xc^T Xc - B^T B: the variance (times n) that cuts threw away; 0 = exact.
    bound
        No eigenvalue of Xc^T Xc - B^T B is larger: the sum of each cut's largest.
    """

    count: int
    mean: Floats
    rows: Features
    discarded: float = 0.0
    bound: float = 0.0

    @classmethod
    def of(cls, rows: Features) -> "Sketch":
        """The exact sketch of float32 (n, D) rows; raises `DataError` where one is not finite."""
        check_finite(rows)
        mean = rows.mean(0, dtype=np.float64)
        return cls(len(rows), mean, (rows - mean).astype(np.float32))

    @property
    def energy(self) -> float:
        """Trace of Xc^T Xc: the variance of all n rows, times n."""
        return float(np.square(self.rows, dtype=np.float64).sum()) + self.discarded

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The same as arrays, for a file."""
        numbers = np.array([self.count, self.discarded, self.bound], np.float64)
        return {"mean": self.mean, "rows": self.rows, "numbers": numbers}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "Sketch":
        """The inverse of `tensors`."""
        count, discarded, bound = tensors["numbers"].tolist()
        return cls(int(count), tensors["mean"], tensors["rows"], discarded, bound)

    def cut(self, limit: int) -> "Sketch":
        """Keep the ``limit`` strongest directions, as rows at right angles."""
        if len(self.rows) <= limit:
            return self
        eigenvalues, vectors = eigh_descending(_scatter(self.rows))
        rows = vectors[:, :limit].T.astype(np.float32) @ self.rows
        return replace(
            self,
            rows=rows,
            discarded=self.discarded + float(eigenvalues[limit:].sum()),
            bound=self.bound + float(eigenvalues[limit]),
        )

    def subspace(self, rank: Rank) -> Subspace:
        """The principal subspace of the rows that the sketch stands for.

        Raises
        ------
        DataError
            When they do not vary, or more components are asked for than n - 1.
        """
        rank.check(self.count)
        origin = np.zeros(len(self.mean))
        eigenvalues, vectors = eigh_descending(products(self.rows, origin))
        check_varies(eigenvalues[0], self.mean, self.count)
        total = float(eigenvalues.sum()) + self.discarded
        k = rank.choose(eigenvalues, total)
        if self.discarded and rank.components is not None and k < rank.components:
            raise DataError(
                f"{rank.components} components asked for, the state of the {self.count} photos "
                f"holds {k} directions; ask for fewer, or fit on the photos again"
            )
        components = directions(self.rows, origin, eigenvalues, vectors, k)
        captured = float(eigenvalues[:k].sum()) / total
        shortfall = min(self.discarded, k * self.bound) / total
        mean = self.mean.astype(np.float32)
        return Subspace(mean, components, eigenvalues, total, captured, shortfall)


def merge(sketches: Sequence[Sketch], limit: int | None = None) -> Sketch:
    """One sketch of all the rows that these stand for; cut to ``limit`` rows if given."""
    sketches = [sketch for sketch in sketches if sketch.count] or sketches[:1]
    if len(sketches) == 1:
        merged = sketches[0]
    else:
        count = sum(sketch.count for sketch in sketches)
        mean = sum((s.mean * (s.count / count) for s in sketches), np.zeros(len(sketches[0].mean)))
        shifts = [np.sqrt(s.count) * (s.mean - mean) for s in sketches]
        merged = Sketch(
            count,
            mean,
            np.concatenate([*(s.rows for s in sketches), np.array(shifts, np.float32)]),
            sum(s.discarded for s in sketches),
            sum(s.bound for s in sketches),
        )
    return merged if limit is None else merged.cut(limit)


class Sketcher:
    """Sketches a stream of rows in one pass, in the memory of about 4 x ``limit`` rows.

    Rows are taken ``limit`` at a time, so that the result does not depend on the batches they
    come in.
    """

    def __init__(self, dimension: int, limit: int) -> None:
        self.limit = limit
        self._waiting = np.empty((limit, dimension), np.float32)
        self._filled = 0
        self._sketch = Sketch(0, np.zeros(dimension), self._waiting[:0])

    def add(self, rows: Features) -> None:
        """Take float32 (n, D); raises `DataError` where one is not finite."""
        while len(rows):
            if self._filled == self.limit:
                self._sketch = self.sketch()
                self._filled = 0
            taken = rows[: self.limit - self._filled]
            self._waiting[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rows = rows[len(taken) :]

    def sketch(self, *, cut: bool = True) -> Sketch:
        """The sketch of all rows so far; what it has seen since the last cut is exact in it.

        Of at most ``limit`` rows, or of twice as many without the last ``cut``.
        """
        if not self._filled:
            return self._sketch
        waiting = Sketch.of(self._waiting[: self._filled])
        return merge([self._sketch, waiting], self.limit if cut else None)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All that `restore` needs to go on from here."""
        return {"waiting": self._waiting[: self._filled], **self._sketch.tensors()}

    def restore(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `tensors`."""
        self._filled = len(tensors["waiting"])
        self._waiting[: self._filled] = tensors["waiting"]
        self._sketch = Sketch.from_tensors(tensors)


def _scatter(rows: Features) -> Floats:
    """B B^T: products in float32, a quarter of the time of float64, tiles added in float64."""
    matrix = np.zeros((len(rows),) * 2)
    for start in range(0, rows.shape[1], TILE):
        tile = np.ascontiguousarray(rows[:, start : start + TILE])
        matrix += tile @ tile.T
    return matrix
