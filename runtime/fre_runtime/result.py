"""What the detector says of one image."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fre_runtime.geometry import Plan
from fre_runtime.rect import Frame

BOX_PIXELS = 4_000_000
"""Boxes of larger photos are found on a map shrunk to this, and are that much coarser."""

State = Literal["good", "anomalous", "invalid"]


class Box(NamedTuple):
    """A rectangle around one anomalous region, in pixels of the caller's image."""

    x: int
    y: int
    width: int
    height: int
    score: float
    """Largest value of the anomaly map inside, 0..1."""


class Tile(NamedTuple):
    """One tile of the caller's image, in its pixels."""

    x: int
    y: int
    width: int
    height: int
    score: float
    """Calibrated score, 0..1; the largest is the image's."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Where in the caller's image a map lies."""

    plan: Plan
    frame: Frame
    """What the map covers, in the image's pixels."""


@dataclass(frozen=True, eq=False)
class Result:
    """Score, map, mask and boxes of one image, at the image's own size."""

    score: float
    """Calibrated score, 0..1; 0.5 is the threshold; NaN when invalid."""
    raw_score: float
    """Uncalibrated reconstruction error, >= 0; NaN when invalid."""
    state: State
    image_size: tuple[int, int]
    """Height and width of the caller's image."""
    native_map: NDArray[np.float32]
    """The map as the graph gives it, (h, w); of tiles, their maps merged."""
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds of ``decode``, ``resize``, ``infer`` and ``postprocess``. Tiles are resized
    while others are inferred: the time of both stands under ``infer`` then."""
    placement: Placement | None = None
    """Where `native_map` lies; None: on the whole image."""
    tiles: tuple[Tile, ...] = ()
    """Score of each tile; empty where the image went into the model in one piece."""

    @property
    def is_anomalous(self) -> bool:
        """True unless the part is good: a part without a valid score is never good."""
        return self.state != "good"

    @cached_property
    def anomaly_map(self) -> NDArray[np.float32]:
        """Calibrated map, float32 (H, W) in 0..1 at the caller's image size; 0.5 = threshold.

        Lifted bilinearly from the native grid on first access; 0 outside of the model's regions.
        It takes four bytes a pixel; `map_at` gives it smaller.
        """
        return self.map_at(*self.image_size)

    def map_at(self, height: int, width: int) -> NDArray[np.float32]:
        """`anomaly_map` of the whole image, shown at another size."""
        if self.placement is None:
            lifted = cv2.resize(self.native_map, (width, height), interpolation=cv2.INTER_LINEAR)
            return np.asarray(lifted, np.float32)
        return self.placement.plan.lift(self.native_map, self.placement.frame, height, width)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Anomalous pixels, bool (H, W) at the caller's image size."""
        return np.asarray(~(self.anomaly_map <= 0.5))  # as in the graph: NaN is not good

    @cached_property
    def boxes(self) -> list[Box]:
        """One rectangle around each connected region of `mask`, the worst first."""
        if (self.native_map <= 0.5).all() or self.state == "invalid":
            return []  # lifting never exceeds the native values
        height, width = self.image_size
        shrink = math.sqrt(height * width / BOX_PIXELS)
        if shrink <= 1:
            return sorted(_boxes(self.anomaly_map), key=lambda box: -box.score)
        rows, columns = math.ceil(height / shrink), math.ceil(width / shrink)
        found = _boxes(self.map_at(rows, columns))
        scaled = (_scaled(box, width / columns, height / rows) for box in found)
        return sorted(scaled, key=lambda box: -box.score)


def _boxes(anomaly_map: NDArray[np.float32]) -> Iterator[Box]:
    mask = ~(anomaly_map <= 0.5)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    for i in range(1, count):
        x, y, width, height = (int(v) for v in stats[i, :4])
        inside = (slice(y, y + height), slice(x, x + width))
        peak = anomaly_map[inside][labels[inside] == i].max()
        yield Box(x, y, width, height, float(peak))


def _scaled(box: Box, x_scale: float, y_scale: float) -> Box:
    left, top = int(box.x * x_scale), int(box.y * y_scale)
    right = math.ceil((box.x + box.width) * x_scale)
    bottom = math.ceil((box.y + box.height) * y_scale)
    return Box(left, top, right - left, bottom - top, box.score)


def state_of(score: float) -> State:
    """Name what a calibrated score means."""
    if not math.isfinite(score):
        return "invalid"
    return "anomalous" if score > 0.5 else "good"
