"""The proof: PyTorch, ONNX Runtime and OpenVINO say the same of the same real photos."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fre_edge.features import FeatureShape
from fre_edge.fre import FRE, FreOutputs, Head
from fre_runtime.calibration import Calibration, Threshold
from fre_runtime.card import Graph, Parity
from fre_runtime.engines import Engine, Outputs
from fre_runtime.errors import FreError
from fre_runtime.image import Image
from fre_runtime.preprocess import prepare
from fre_runtime.progress import track

log = logging.getLogger(__name__)


class Tolerance(NamedTuple):
    """How far an engine may lie from the reference."""

    score: float
    """Largest relative difference of the raw score."""
    map: float
    """Largest difference of the raw map, relative to its largest value."""


TOLERANCES = {
    "f32": Tolerance(1e-3, 1e-3),
    # A last bit that one engine rounds up and another down grows from layer to layer.
    "bf16": Tolerance(0.05, 0.1),
    "int8": Tolerance(0.05, 0.2),
}
"""By what is executed."""
ULPS = 4
"""Units in the last place by which engines' calibrated values may differ unnoticed."""


class ParityError(FreError, RuntimeError):
    """An engine disagrees with PyTorch."""


@dataclass(frozen=True)
class Sample:
    """A photo to compare on."""

    name: str
    image: Image


def reference(module: FRE, graph: Graph, samples: Sequence[Sample]) -> list[Outputs]:
    """Run the PyTorch module on each sample."""
    outputs = []
    with torch.inference_mode():
        shown = track(samples, len(samples), "parity, PyTorch")
        for sample in shown if log.isEnabledFor(logging.INFO) else samples:
            outputs.append(_arrays(module(torch.from_numpy(prepare(sample.image, graph)))))
    return outputs


def reference_head(
    head: Head, features: Sequence[NDArray[np.float32]], shapes: Sequence[FeatureShape]
) -> list[Outputs]:
    """Run the PyTorch head on each row of the (N, D) features that another trunk gave."""
    outputs = []
    with torch.inference_mode():
        for rows in zip(*features, strict=True):
            tensors = [
                torch.from_numpy(row).reshape(1, *shape)
                for row, shape in zip(rows, shapes, strict=True)
            ]
            outputs.append(_arrays(head(tensors)))
    return outputs


def _arrays(outputs: FreOutputs) -> Outputs:
    return Outputs(*(tensor.numpy() for tensor in outputs))


def prove(
    expected: Sequence[Outputs],
    engines: Mapping[str, Engine],
    graph: Graph,
    calibration: Calibration,
    samples: Sequence[Sample],
    source: str,
    precision: str = "f32",
) -> Parity:
    """Compare each engine with the reference on every sample.

    Raises
    ------
    ParityError
        Naming the engine and the worst image, when a raw score or map differs by more than the
        tolerance of ``precision``, or a label differs.
    """
    score_error: dict[str, float] = {}
    map_error: dict[str, float] = {}
    tolerance = TOLERANCES[precision]
    for name, engine in engines.items():
        differences = [
            _difference(engine.run(prepare(sample.image, graph)), outputs, calibration, tolerance)
            for sample, outputs in zip(samples, expected, strict=True)
        ]
        worst = max(range(len(samples)), key=lambda i: differences[i].severity)
        if not differences[worst].severity <= 1:
            raise ParityError(
                f"{name} disagrees with PyTorch, worst on {samples[worst].name}: "
                f"{differences[worst]}"
            )
        score_error[name] = max(difference.score for difference in differences)
        map_error[name] = max(difference.map for difference in differences)
    return Parity(
        images=len(samples),
        source=source,
        score_error=score_error,
        map_error=map_error,
        labels_equal=True,
        score_tolerance=tolerance.score,
        map_tolerance=tolerance.map,
    )


@dataclass(frozen=True)
class Difference:
    """How far one engine's outputs for one image lie from PyTorch's."""

    score: float
    """Relative, of the raw score."""
    map: float
    """Of the raw map, relative to its largest value."""
    score_rounding: float
    """The part of `score` that rounding the calibrated value to float32 explains."""
    map_rounding: float
    same_label: bool
    """Also that the mask is the map's own."""
    tolerance: Tolerance

    @property
    def severity(self) -> float:
        """At most 1 where everything is within tolerance; infinite where it cannot be said.

        What rounding explains is no disagreement.
        """
        if not self.same_label or not np.isfinite([self.score, self.map]).all():
            return float("inf")
        return max(
            (self.score - self.score_rounding) / self.tolerance.score,
            (self.map - self.map_rounding) / self.tolerance.map,
        )

    def __str__(self) -> str:
        return (
            f"raw score off by {self.score:.2e} (limit {self.tolerance.score:g}), map by "
            f"{self.map:.2e} (limit {self.tolerance.map:g}), "
            f"label {'the same' if self.same_label else 'different'}"
        )


def _difference(
    got: Outputs, expected: Outputs, calibration: Calibration, tolerance: Tolerance
) -> Difference:
    def relative(threshold: Threshold, a: NDArray[Any], b: NDArray[Any]) -> tuple[float, float]:
        ours, theirs = threshold.raw(a), threshold.raw(b)
        largest = max(theirs.max(), np.finfo(np.float32).tiny)
        off = np.abs(ours - theirs) / largest
        resolution = np.maximum(threshold.resolution(a), threshold.resolution(b))
        rounding = np.minimum(off, ULPS * resolution * theirs / largest)
        return float(off.max()), float(off.max() - (off - rounding).max())

    score, score_rounding = relative(calibration.image, got.pred_score, expected.pred_score)
    anomaly_map, map_rounding = relative(calibration.pixel, got.anomaly_map, expected.anomaly_map)
    same_label = np.array_equal(got.pred_label, expected.pred_label)
    if tolerance != TOLERANCES["f32"]:  # on the threshold itself either label is right
        odds = calibration.image.raw(expected.pred_score) / calibration.image.value
        same_label = same_label or bool((np.abs(odds - 1) <= tolerance.score).all())
    return Difference(
        score=score,
        map=anomaly_map,
        score_rounding=score_rounding,
        map_rounding=map_rounding,
        same_label=same_label and np.array_equal(got.pred_mask, ~(got.anomaly_map <= 0.5)),
        tolerance=tolerance,
    )
