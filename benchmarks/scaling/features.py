"""Features with a known spectrum, made a block at a time: no array of them all is ever there."""

from collections.abc import Iterator

import numpy as np

DIRECTIONS = 384
"""Directions that the features vary in: more than a sketch has rows, so that it must cut."""
BLOCK = 256


class Synthetic:
    """Rows x = sum_i sqrt(lambda_i) z_i v_i with z ~ N(0, 1) and lambda_i = 1 / i.

    The v_i are the first cosines, orthonormal in any number of dimensions.
    """

    def __init__(self, dimension: int, seed: int = 0) -> None:
        self.seed = seed
        directions = min(DIRECTIONS, dimension)
        self.variances = 1 / np.arange(1, directions + 1)
        places = (np.arange(dimension) + 0.5) * (np.pi / dimension)
        self.basis = np.empty((directions, dimension), np.float32)
        for i in range(directions):
            self.basis[i] = np.cos(places * (i + 1)) * np.sqrt(2 / dimension * self.variances[i])

    def blocks(self, rows: int) -> Iterator[np.ndarray]:
        """Yield float32 (n, D) blocks, the same ones however many follow."""
        for number, start in enumerate(range(0, rows, BLOCK)):
            rng = np.random.default_rng((self.seed, number))
            weights = rng.standard_normal((min(BLOCK, rows - start), len(self.basis)), np.float32)
            yield weights @ self.basis

    def best(self, k: int) -> float:
        """Share of the variance that the best k directions hold, of infinitely many rows."""
        return float(self.variances[:k].sum() / self.variances.sum())

    def captured(self, components: np.ndarray) -> float:
        """Share of the variance, of infinitely many rows, that orthonormal (k, D) rows hold."""
        energy = np.square(components.astype(np.float64) @ self.basis.T.astype(np.float64)).sum()
        return float(energy / self.variances.sum())
