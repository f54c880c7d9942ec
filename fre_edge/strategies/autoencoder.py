"""Shallow linear autoencoders, trained by Adam: the paper's alternative to PCA.

Tied, u' = W^T W (u - mu) + mu, it converges to the principal subspace (Baldi, Hornik 1989).
Untied, u' = V^T (W (u - mu) + b) + c + mu, encoder and decoder are learned apart, with biases.
Settings as in the paper's code: Adam, 1e-3, batches of 64, at most 250 epochs; here features are
centred and scaled first, the step is lowered where the loss no longer falls, and training ends once
that does not help either.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fre_edge.features import FeatureShape
from fre_edge.strategies.base import (
    Features,
    Floats,
    Folds,
    Rank,
    Rows,
    Strategy,
    Subspace,
    refit_maps,
    release,
)
from fre_edge.strategies.incremental import Incremental
from fre_edge.strategies.pca import LARGE, Pca, eigh_descending, signs
from fre_runtime.progress import track

log = logging.getLogger(__name__)

STEP = 1e-3
BATCH = 64
PATIENCE = 5
"""Epochs without a fall of the loss by `ENOUGH` before the step is lowered."""
ENOUGH = 1e-3
LOWER = 0.3
LEAST_STEP = 1e-5


@dataclass(frozen=True)
class Autoencoder:
    """Time O(epochs N k D), memory O(k D) beside the features.

    Parameters
    ----------
    tied
        One matrix for both ways.
    warm
        Begin at the PCA instead of at random.
    seed
        For the beginning and the order of the rows.
    epochs
        Passes over the rows at most.
    """

    tied: bool
    warm: bool = False
    seed: int = 0
    epochs: int = 250

    def fit(self, rows: Rows, rank: Rank) -> Subspace:
        """See `Strategy`; k is chosen by the spectrum, as for PCA."""
        exact = len(rows) <= LARGE and not isinstance(rows.array, np.memmap)
        pca: Strategy = Pca() if exact else Incremental()
        start = pca.fit(rows, rank)
        energy = start.energy
        scale = float(np.sqrt(energy / (len(rows) * rows.dimension)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = _Coder(start, tied=self.tied, warm=self.warm)
            _train(model, rows, start.mean, scale, self.epochs)
        if self.tied:
            found = _orthonormal(model, start, rows, energy)
        else:
            found = _folded(model, start, scale)
            errors = (np.square(found.residuals(batch)).sum() for batch in rows.batches())
            found = replace(found, captured=1 - float(sum(errors)) / energy)
        lacking = max(0.0, start.captured - found.captured)
        log.info("autoencoder: %.5f of the variance, PCA %.5f", found.captured, start.captured)
        return replace(found, shortfall=lacking + start.shortfall)

    def held_out(
        self,
        rows: Rows,
        shape: FeatureShape,
        folds: Folds,
        rank: Rank,
        shown: Rows | None = None,
    ) -> Floats:
        """See `Strategy`; trains once for each fold."""
        return refit_maps(self, rows, shape, folds, rank, shown)


class _Coder(nn.Module):
    """x (n, D), centred and scaled, to its reconstruction (n, D)."""

    def __init__(self, start: Subspace, *, tied: bool, warm: bool) -> None:
        super().__init__()
        k, dimension = start.components.shape
        self.encoder = nn.Linear(dimension, k, bias=not tied)
        self.decoder = None if tied else nn.Linear(k, dimension)
        if warm:
            components = torch.from_numpy(start.components)
            nn.init.zeros_(self.encoder.bias) if self.encoder.bias is not None else None
            self.encoder.weight.data.copy_(components)
            if self.decoder is not None:
                nn.init.zeros_(self.decoder.bias)
                self.decoder.weight.data.copy_(components.T)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct."""
        code = self.encoder(x)
        reconstructed: Tensor = (
            code @ self.encoder.weight if self.decoder is None else self.decoder(code)
        )
        return reconstructed


def _train(model: _Coder, rows: Rows, mean: Features, scale: float, most: int) -> None:
    """Minimise the mean squared error until it no longer falls."""
    optimiser = torch.optim.Adam(model.parameters(), STEP)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=LOWER, patience=PATIENCE, threshold=ENOUGH
    )
    epochs = iter(range(most))
    if log.isEnabledFor(logging.INFO):
        epochs = track(epochs, most, "training the autoencoder, epochs")
    for _ in epochs:
        total = 0.0
        order = torch.randperm(len(rows)).numpy()
        for first in range(0, len(rows), BATCH):
            # in order of their place, so that a disk is read one way
            x = (rows.take(np.sort(order[first : first + BATCH])) - mean) / np.float32(scale)
            batch = torch.from_numpy(x)
            loss = (model(batch) - batch).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(x)
        release(rows.array)
        schedule.step(total / len(rows))
        if optimiser.param_groups[0]["lr"] < LEAST_STEP:
            break


@torch.inference_mode()
def _orthonormal(model: _Coder, start: Subspace, rows: Rows, energy: float) -> Subspace:
    """The span of the tied W, as orthonormal rows along the principal directions within it.

    Where training has converged W^T W is this projection; else it reconstructs better.
    """
    basis = np.linalg.qr(model.encoder.weight.numpy().T.astype(np.float64))[0]
    scatter = np.zeros((basis.shape[1],) * 2)
    for batch in rows.batches():
        code = (batch - start.mean) @ basis
        scatter += code.T @ code
    eigenvalues, vectors = eigh_descending(scatter)
    components = (basis @ vectors).T.astype(np.float32)
    components *= signs(components)[:, None]
    captured = float(eigenvalues.sum()) / energy
    return Subspace(start.mean, components, eigenvalues, energy, captured)


@torch.inference_mode()
def _folded(model: _Coder, start: Subspace, scale: float) -> Subspace:
    """The untied pair with both biases folded into the mean and one bias of the code.

    u' = V^T (W x + b) + c + mu, x = u - mu, is V^T (W (u - m) + W r) + m with r = V^T b + c and
    m = mu + r.
    """
    assert model.decoder is not None
    encoder, decoder = model.encoder.weight.numpy(), model.decoder.weight.numpy().T
    shift = scale * (model.encoder.bias.numpy() @ decoder + model.decoder.bias.numpy())
    return Subspace(
        (start.mean + shift).astype(np.float32),
        encoder.copy(),
        start.spectrum,
        start.energy,
        0.0,
        decoder=np.ascontiguousarray(decoder),
        bias=(encoder @ shift).astype(np.float32),
    )
