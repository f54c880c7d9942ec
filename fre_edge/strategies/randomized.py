"""Randomised PCA by subspace iteration (Halko, Martinsson, Tropp, SIAM Review 2011).

With the scatter C = Xc^T Xc, which is never formed: Q = orth(C Omega) for a random Omega (D, l),
once more Q = orth(C Q), then the eigenvectors of the small Q^T C Q. Five passes over the rows (two
for mean and trace), memory O(l D). What Q misses is known afterwards: tr C - tr Q^T C Q exactly,
and the largest eigenvalue missed is estimated by Gaussian test vectors (their equation 4.3), too
low in 1 of 10^6 cases.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fre_edge.features import FeatureShape
from fre_edge.memory import check_memory
from fre_edge.strategies.base import (
    Features,
    Floats,
    Folds,
    Rank,
    Rows,
    Subspace,
    check_varies,
    refit_maps,
)
from fre_edge.strategies.pca import eigh_descending, signs

log = logging.getLogger(__name__)

OVERSAMPLING = 16
"""Directions beyond k; a few are enough with the second iteration."""
FIRST = 128
"""Directions tried first where a share of the variance is asked for; doubled until it is held."""
PLANNED = 4 * FIRST
"""Directions that a plan counts on; for more, memory is asked for when it comes to that."""
TESTS = 6
"""Gaussian test vectors: the estimate is too low with a probability of 10^-6."""


def sketch_bytes(size: int, dimension: int) -> int:
    """Memory for so many directions: random vectors, their image, its basis, what it misses."""
    return 4 * 4 * size * dimension


@dataclass(frozen=True)
class Randomized:
    """Time O(N l D), memory O(l D), with l a little more than k."""

    seed: int = 0

    def fit(self, rows: Rows, rank: Rank) -> Subspace:
        """See `Strategy`."""
        rank.check(len(rows))
        mean, energy = _moments(rows)
        check_varies(energy / min(len(rows) - 1, rows.dimension), mean, len(rows))
        full = min(len(rows) - 1, rows.dimension)
        enough = full if rank.bound is None else min(full, rank.bound + OVERSAMPLING)
        size = FIRST if rank.components is None else enough
        while True:
            size = min(size, enough)
            if size > PLANNED:
                check_memory(
                    sketch_bytes(size, rows.dimension),
                    f"looking for {size} of {full} directions at random",
                    "give less --variance, fewer --components, or take --method incremental",
                )
            basis, eigenvalues, vectors, missed = self._iterate(rows, mean, size)
            held = float(eigenvalues.sum()) / energy
            if size == enough or held * 0.98 >= rank.variance:
                break
            size *= 2
        k = rank.choose(eigenvalues, energy)
        components = (vectors[:, :k].T @ basis.T).astype(np.float32)
        components *= signs(components)[:, None]
        captured = float(eigenvalues[:k].sum()) / energy
        log.info(
            "randomised: %d directions hold %.4f of the variance; the largest one missed is "
            "estimated at %.2g of it at most",
            size,
            held,
            missed / energy,
        )
        shortfall = max(0.0, min(1 - held, k * missed / energy))
        mean32 = mean.astype(np.float32)
        return Subspace(mean32, components, eigenvalues, energy, captured, shortfall)

    def held_out(
        self,
        rows: Rows,
        shape: FeatureShape,
        folds: Folds,
        rank: Rank,
        shown: Rows | None = None,
    ) -> Floats:
        """See `Strategy`."""
        return refit_maps(self, rows, shape, folds, rank, shown)

    def _iterate(
        self, rows: Rows, mean: Floats, size: int
    ) -> tuple[Features, Floats, Floats, float]:
        """Return Q (D, l), the eigenvalues and eigenvectors of Q^T C Q, and the error estimate."""
        rng = np.random.default_rng(self.seed)
        omega = rng.standard_normal((rows.dimension, size + TESTS), np.float32)
        image = _scatter_times(rows, mean, omega)
        tested = image[:, size:]
        basis = np.linalg.qr(image[:, :size])[0]
        basis = np.linalg.qr(_scatter_times(rows, mean, basis))[0]
        small = np.zeros((size, size))
        for batch in _centred(rows, mean):
            code = (batch @ basis).astype(np.float64)
            small += code.T @ code
        left = tested - basis @ (basis.T @ tested)
        estimate = 10 * np.sqrt(2 / np.pi) * float(np.linalg.norm(left, axis=0).max())
        return basis, *eigh_descending(small), estimate


def _moments(rows: Rows) -> tuple[Floats, float]:
    """Mean (D,) and the trace of the scatter, in two passes: one would cancel."""
    mean = rows.mean()
    energy = sum(float(np.square(b, dtype=np.float64).sum()) for b in _centred(rows, mean))
    return mean, energy


def _centred(rows: Rows, mean: Floats) -> Iterator[Features]:
    for batch in rows.batches():
        yield (batch - mean).astype(np.float32)


def _scatter_times(rows: Rows, mean: Floats, directions: Features) -> Features:
    """C V = Xc^T (Xc V), float32 (D, l)."""
    product = np.zeros_like(directions)
    for batch in _centred(rows, mean):
        product += batch.T @ (batch @ directions)
    return product
