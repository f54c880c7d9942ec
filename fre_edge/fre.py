"""The FRE module: uint8 image in, calibrated score, label, map and mask out.

Ndiour, Ahuja, Genc, Tickoo: FRE: A Fast Method For Anomaly Detection And Segmentation, BMVC 2023.
This module is what gets exported: every constant of the deployed graph is a buffer here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fre_edge.expectation import Expectation, Expected
from fre_edge.features import FeatureExtractor, FeatureShape
from fre_edge.fusion import Fuse, Fusion, finest_grid
from fre_edge.partition import Partition
from fre_edge.strategies.base import Subspace
from fre_runtime.calibration import Threshold

SLACK = 0.5
"""How far outside of 0..1 a float pixel may lie, as sharp resizing brings it."""


class FreOutputs(NamedTuple):
    """The four outputs, in the graph's order; see `fre_runtime.engines.Outputs`."""

    pred_score: Tensor
    pred_label: Tensor
    anomaly_map: Tensor
    pred_mask: Tensor


class Reconstruction(nn.Module):
    """Feature reconstruction error of the vectors of one subspace: one layer's, or a part's.

    The paper's equations: z = T(u) = W (u - mu), u' = T^-1(z) = W^T z + mu, e = u - u'; the error
    map is M(i,j) = 1/C sum_c e(c,i,j)^2 (the square as in the authors' code).

    W is kept in 8 bits: each row is rounded to whole numbers q, and the projection onto it is
    q q^T / |q|^2. At batch 1 the two products are bound by reading W; this is a quarter of it, in
    the file as well; ``benchmarks/rounding.py`` tells how little that moves the scores.

    Features are taken channels last, as engines have them: the columns of W are in that order here.

    The decoder V of an untied autoencoder is rounded in the same way, and both keep the lengths
    that were learned; its one bias b is added to the code.
    """

    mean: Tensor
    components: Tensor
    decoder: Tensor | None
    project: Tensor
    reconstruct: Tensor
    bias: Tensor | None

    def __init__(self, subspace: Subspace, shape: FeatureShape) -> None:
        super().__init__()
        self.shape = shape
        components, step = _rounded(_channels_last(subspace.components, shape))
        self.step = step[:, 0]
        # Two factors, since a plain number on the way back lets engines keep 8 bits there.
        back = 1 / 127
        self.register_buffer(
            "mean", torch.from_numpy(_channels_last(subspace.mean[None], shape)[0])
        )
        self.register_buffer("components", components)
        if subspace.decoder is None:
            decoder = None
            scale = 1 / components.double().square().sum(1, keepdim=True)  # 1/|q|^2
            bias = None
        else:
            decoder, step_back = _rounded(_channels_last(subspace.decoder, shape))
            scale = step.double() * step_back
            bias = -(torch.from_numpy(subspace.bias) * step_back[:, 0] / back).float()
        self.register_buffer("decoder", decoder)
        self.register_buffer("project", (-scale / back).float())
        self.register_buffer("bias", bias)
        self.register_buffer("reconstruct", torch.tensor(back))

    @property
    def units(self) -> Tensor:
        """Coordinates along the rows of W, for each unit of the code, (k,)."""
        return self.step / self.project[:, 0]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features u (N, C, h, w) to sum_c e(c,i,j)^2, (N, h * w), and the code (N, k)."""
        x = features.permute(0, 2, 3, 1).flatten(1) - self.mean
        components = self.components.float()
        z = x @ (components * self.project).T
        if self.bias is not None:
            z = z + self.bias
        way_back = components if self.decoder is None else self.decoder.float()
        error = torch.addmm(x, z, way_back * self.reconstruct)
        error = error.reshape(-1, self.shape.height * self.shape.width, self.shape.channels)
        return (error * error).sum(2), z


def _channels_last(rows: NDArray[np.float32], shape: FeatureShape) -> NDArray[np.float32]:
    """Rows (k, D) whose columns go cell by cell, and no longer channel by channel."""
    return np.ascontiguousarray(rows.reshape(-1, *shape).transpose(0, 2, 3, 1)).reshape(rows.shape)


def _rounded(rows: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Rows (k, D) as whole numbers in -127..127, and the step of each, (k, 1)."""
    exact = torch.from_numpy(rows)
    step = exact.abs().amax(1, keepdim=True) / 127
    return (exact / step).round().to(torch.int8), step


class Layer(nn.Module):
    """Feature reconstruction error of one layer, of each part of its `Partition` by itself."""

    def __init__(self, subspaces: Sequence[Subspace], partition: Partition) -> None:
        super().__init__()
        self.partition = partition
        parts = [
            Reconstruction(subspace, part.shape)
            for subspace, part in zip(subspaces, partition.parts, strict=True)
        ]
        self.parts = nn.ModuleList(parts)
        self.units = parts[0].units

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features u (N, C, h, w) to sum_c e(c,i,j)^2 (N, h * w), and the first part's code."""
        energies, codes = zip(
            *(
                reconstruct(part.vectors(features))
                for part, reconstruct in zip(self.partition.parts, self.parts, strict=True)
            ),
            strict=True,
        )
        return self.partition.join(energies), codes[0]


class Head(nn.Module):
    """What follows the backbone: reconstruction, fusion, score and calibration.

    Parameters
    ----------
    subspaces
        The fitted subspaces of each layer, one for each part of its partition.
    partitions
        How the features of each layer are divided.
    fusion
        What makes the layers comparable.
    expectation
        What makes photos comparable; None = errors as they are, the paper's.
    score
        ``p3``, ``p2``, ``sum`` or ``max``; see `fre_edge.scores.image_scores`.
    image_threshold, pixel_threshold
        Constants of the calibrated scales.
    lift_to
        (height, width) to which map and mask are lifted in the graph; None keeps the native grid.
    """

    image_tau: Tensor
    pixel_tau: Tensor

    def __init__(
        self,
        subspaces: Sequence[Sequence[Subspace]],
        partitions: Sequence[Partition],
        fusion: Fusion,
        expectation: Expectation | None,
        score: str,
        image_threshold: Threshold,
        pixel_threshold: Threshold,
        lift_to: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        layers = [
            Layer(parts, partition) for parts, partition in zip(subspaces, partitions, strict=True)
        ]
        self.layers = nn.ModuleList(layers)
        shapes = [partition.shape for partition in partitions]
        self.grid = finest_grid(shapes)
        self.fuse = Fuse(shapes, fusion, score).float()
        self.expected = None if expectation is None else Expected(expectation, layers[0].units)
        # Buffers, so that they keep their names in the graph: fre-calibrate changes them there.
        self.register_buffer("image_tau", torch.tensor(image_threshold.value))
        self.register_buffer("pixel_tau", torch.tensor(pixel_threshold.value))
        self.image_spread = image_threshold.spread
        self.pixel_spread = pixel_threshold.spread
        self.lift_to = lift_to

    def forward(self, features: Sequence[Tensor], image: Tensor | None = None) -> FreOutputs:
        """Score the features of a batch, float32 (N, C, h, w) for each layer; see `FRE.forward`.

        ``image`` is given where it is of floats: it can hold a NaN then, which a trunk may lose, or
        be of another scale than 0..1.
        """
        raw_score, raw_map = self.raw(features)
        score = _calibrated(raw_score, self.image_tau, self.image_spread)
        # x - x is 0, or NaN where x is not finite: engines lose NaN in max, ReLU and Clip. Sums,
        # which all other scores are, keep it.
        if self.fuse.score == "max":
            total = raw_map.sum((1, 2, 3))
            score = score + (total - total)
        if image is not None:
            each = (1, 2, 3)
            room = torch.minimum(image.amin(each) + SLACK, 1 + SLACK - image.amax(each))
            total = image.sum(each) + room.sqrt()  # NaN where there is no room
            score = score + (total - total)
        anomaly_map = _calibrated(raw_map, self.pixel_tau, self.pixel_spread)
        if self.lift_to is not None:
            anomaly_map = F.interpolate(anomaly_map, self.lift_to, mode="bilinear")
        # not (x <= 0.5) instead of x > 0.5: a NaN must not read as good
        return FreOutputs(score, ~(score <= 0.5), anomaly_map, ~(anomaly_map <= 0.5))

    def raw(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the uncalibrated score S (N,) and map M (N, 1, h, w), both >= 0."""
        energies, codes = zip(
            *(layer(u) for layer, u in zip(self.layers, features, strict=True)), strict=True
        )
        expected = None if self.expected is None else self.expected(features[0], codes[0])
        score, anomaly_map = self.fuse(energies, expected)
        return score, anomaly_map.reshape(-1, 1, *self.grid)


class FRE(nn.Module):
    """Truncated backbone and `Head` in one: image in, calibrated score, label, map and mask out."""

    def __init__(self, extractor: FeatureExtractor, head: Head) -> None:
        super().__init__()
        self.extractor = extractor
        self.head = head

    def forward(self, image: Tensor) -> FreOutputs:
        """Score a batch.

        Parameters
        ----------
        image
            uint8 (N, H, W, 3) RGB; or float32 (N, 3, H, W) RGB in 0..1, by the extractor's ``io``.

        Returns
        -------
        pred_score float32 (N,), pred_label bool (N,), anomaly_map float32 (N, 1, h, w), pred_mask
        bool (N, 1, h, w). Scores and maps lie in 0..1 and 0.5 is the threshold. Where any feature
        is not finite, or a float pixel lies outside of -0.5..1.5, the score is NaN and the label
        True.
        """
        floats = image if self.extractor.io == "float" else None
        outputs: FreOutputs = self.head(self.extractor(image), floats)
        return outputs

    def raw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the uncalibrated score S (N,) and map M (N, 1, h, w), both >= 0."""
        return self.head.raw(self.extractor(image))


def _calibrated(raw: Tensor, tau: Tensor, spread: float) -> Tensor:
    """sigmoid((log raw - log tau) / s), written without the logarithm."""
    if spread == 1:
        return raw / (raw + tau)
    odds = (raw / tau).pow(1 / spread)
    return odds / (1 + odds)
