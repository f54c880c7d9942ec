"""The FRE module: uint8 image in, calibrated score, label, map and mask out.

Ndiour, Ahuja, Genc, Tickoo: FRE: A Fast Method For Anomaly Detection And Segmentation, BMVC 2023.
This module is what gets exported: every constant of the deployed graph is a buffer here.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fre_edge.features import FeatureExtractor, FeatureShape
from fre_edge.fusion import Fusion, finest_grid, fuse
from fre_edge.scores import image_score
from fre_edge.subspace import Subspace
from fre_runtime.calibration import Threshold


class FreOutputs(NamedTuple):
    """The four outputs, in the graph's order; see `fre_runtime.engines.Outputs`."""

    pred_score: Tensor
    pred_label: Tensor
    anomaly_map: Tensor
    pred_mask: Tensor


class Reconstruction(nn.Module):
    """Feature reconstruction error of one layer.

    The paper's equations: z = T(u) = W (u - mu), u' = T^-1(z) = W^T z + mu, and the error map
    M(i,j) = 1/C sum_c (u - u')^2 (the square as in the authors' code). The mean is folded into
    the two affine maps, so that each is a single matrix product.
    """

    components: Tensor
    bias: Tensor
    mean: Tensor

    def __init__(self, subspace: Subspace) -> None:
        super().__init__()
        components = torch.from_numpy(subspace.components)
        mean = torch.from_numpy(subspace.mean)
        self.register_buffer("components", components)
        self.register_buffer("bias", -(components.double() @ mean.double()).float())
        self.register_buffer("mean", mean)

    def forward(self, features: Tensor) -> Tensor:
        """Map features u (N, C, h, w) to the error map M (N, 1, h, w)."""
        u = features.flatten(1)
        z = F.linear(u, self.components, self.bias)
        reconstructed = torch.addmm(self.mean, z, self.components)
        error = (u - reconstructed).reshape(features.shape)
        return error.square().mean(1, keepdim=True)


class FRE(nn.Module):
    """Truncated backbone, reconstruction, fusion, score and calibration in one graph.

    Parameters
    ----------
    extractor
        Normalisation, backbone and pooling; decides what the input is.
    subspaces
        The fitted subspace of each of the extractor's layers.
    shapes
        Feature shape of each layer.
    fusion
        Factors of each layer; all 1 for a single layer.
    score
        ``p3``, ``p2``, ``sum`` or ``max``; see `fre_edge.scores.image_score`.
    image_threshold, pixel_threshold
        Constants of the calibrated scales.
    lift_to
        (height, width) to which map and mask are lifted in the graph; None keeps the native grid.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        subspaces: Sequence[Subspace],
        shapes: Sequence[FeatureShape],
        fusion: Fusion,
        score: str,
        image_threshold: Threshold,
        pixel_threshold: Threshold,
        lift_to: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.extractor = extractor
        self.reconstructions = nn.ModuleList(Reconstruction(s) for s in subspaces)
        self.grid = finest_grid(shapes)
        self.fusion = fusion
        self.score = score
        self.image_threshold = image_threshold
        self.pixel_threshold = pixel_threshold
        self.lift_to = lift_to

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
        is not finite, the score is NaN and the label True.
        """
        raw_score, raw_map = self.raw(image)
        score = _calibrated(raw_score, self.image_threshold)
        # x - x is 0, or NaN where x is not finite: engines lose NaN in max, ReLU and Clip.
        total = raw_map.sum((1, 2, 3))
        score = score + (total - total)
        if self.extractor.io == "float":  # only there can the input itself hold a NaN
            pixels = image.sum((1, 2, 3))
            score = score + (pixels - pixels)
        anomaly_map = _calibrated(raw_map, self.pixel_threshold)
        if self.lift_to is not None:
            anomaly_map = F.interpolate(anomaly_map, self.lift_to, mode="bilinear")
        # not (x <= 0.5) instead of x > 0.5: a NaN must not read as good
        return FreOutputs(score, ~(score <= 0.5), anomaly_map, ~(anomaly_map <= 0.5))

    def raw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the uncalibrated score S (N,) and map M (N, 1, h, w), both >= 0."""
        maps = [
            reconstruct(u)
            for reconstruct, u in zip(self.reconstructions, self.extractor(image), strict=True)
        ]
        if len(maps) == 1:
            return image_score(maps[0], self.score, self.pixel_threshold.value), maps[0]
        return fuse(maps, self.fusion, self.score, self.grid)


def _calibrated(raw: Tensor, threshold: Threshold) -> Tensor:
    log_tau = float(torch.tensor(threshold.value, dtype=torch.float64).log())
    return torch.sigmoid((raw.log() - log_tau) / threshold.spread)
