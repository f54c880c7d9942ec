"""What the detector says of one image."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

State = Literal["good", "anomalous", "invalid"]


class Box(NamedTuple):
    """A rectangle around one anomalous region, in pixels of the caller's image."""

    x: int
    y: int
    width: int
    height: int
    score: float
    """Largest value of the anomaly map inside, 0..1."""


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
    """The map as the graph gives it, (h, w)."""
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds of ``decode``, ``resize``, ``infer`` and ``postprocess``."""

    @property
    def is_anomalous(self) -> bool:
        """True unless the part is good: a part without a valid score is never good."""
        return self.state != "good"

    @cached_property
    def anomaly_map(self) -> NDArray[np.float32]:
        """Calibrated map, float32 (H, W) in 0..1 at the caller's image size; 0.5 = threshold.

        Lifted bilinearly from the native grid on first access.
        """
        height, width = self.image_size
        lifted = cv2.resize(self.native_map, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(lifted, np.float32)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Anomalous pixels, bool (H, W) at the caller's image size."""
        return np.asarray(~(self.anomaly_map <= 0.5))  # as in the graph: NaN is not good

    @cached_property
    def boxes(self) -> list[Box]:
        """One rectangle around each connected region of `mask`, the worst first."""
        if (self.native_map <= 0.5).all() or self.state == "invalid":
            return []  # lifting never exceeds the native values
        count, labels, stats, _ = cv2.connectedComponentsWithStats(self.mask.astype(np.uint8))
        boxes = []
        for i in range(1, count):
            x, y, width, height = (int(v) for v in stats[i, :4])
            inside = (slice(y, y + height), slice(x, x + width))
            peak = self.anomaly_map[inside][labels[inside] == i].max()
            boxes.append(Box(x, y, width, height, float(peak)))
        return sorted(boxes, key=lambda box: -box.score)


def state_of(score: float) -> State:
    """Name what a calibrated score means."""
    if not np.isfinite(score):
        return "invalid"
    return "anomalous" if score > 0.5 else "good"
