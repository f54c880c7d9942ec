"""One model, at most one line that uses it, and what can be asked of them."""

import base64
import shlex
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fre_runtime.detector import Detector
from fre_runtime.image import read_image
from fre_runtime.live.line import Line
from fre_runtime.serve.board import Board, picture

STOPS = np.linspace(0.01, 0.99, 197)
"""Calibrated thresholds that the page's slider can take."""

TRIED_SIDE = 960
"""Longest side of the answer's picture of an uploaded photo, in pixels."""


@dataclass(frozen=True)
class Watched:
    """The line on the page."""

    board: Board
    line: Line
    ended: threading.Event


class Service:
    """What the endpoints answer from; safe to call from many threads.

    Parameters
    ----------
    detector
        The model, shared by the line and the uploads.
    model
        Its directory, as the user named it.
    watched
        The line; None where there is only the model.
    """

    def __init__(self, detector: Detector, model: Path, watched: Watched | None = None) -> None:
        self.detector = detector
        self._model = model
        self._watched = watched

    @property
    def board(self) -> Board | None:
        """What is known of the line, or None where there is none."""
        return self._watched.board if self._watched else None

    def about(self) -> dict[str, Any]:
        """What does not change: the model, its threshold, and what others would mean.

        ``threshold["stops"]`` has a row of calibrated threshold, raw threshold and share of the
        held-out good scenes above it for each position of the slider.
        """
        card, info = self.detector.card, self.detector.info
        calibration = card.variants[self.detector.variant].calibration
        raw = calibration.image.raw(STOPS)
        rates = calibration.held_out.share_above(raw)
        return {
            "name": card.name,
            "created": card.created,
            "backbone": card.backbone.name,
            "layers": card.backbone.layers,
            "images": card.training.images,
            "scenes": card.training.scenes,
            "variant": self.detector.variant,
            **asdict(info),
            "source": self._watched.line.capture.name if self._watched else None,
            "threshold": {
                "raw": calibration.image.value,
                "fpr": calibration.fpr_supported,
                "scenes": round(sum(calibration.held_out.counts)),
                "stops": np.stack([STOPS, raw, rates], 1).tolist(),
            },
            "calibrate": f"fre-calibrate {shlex.quote(str(self._model))} GOOD_PHOTOS --out NEW",
        }

    def state(self, since: int) -> dict[str, Any]:
        """What changes: `Board.state`, with the line's counters and whether it still runs.

        ``alarm`` is None, or the ``time`` and state of drift when the alarm that is on began.
        """
        if self._watched is None:
            return {"line": "none"}
        line = self._watched.line
        alarm = line.alarm if line.drift and line.drift.drifting else None
        return {
            "line": "ended" if self._watched.ended.is_set() else "running",
            "now": time.time(),
            "alarm": (
                {"time": alarm.time, **asdict(alarm.drift)} if alarm and alarm.drift else None
            ),
            "counters": asdict(line.counters),
            **self._watched.board.state(since),
        }

    def reset_drift(self) -> None:
        """Let the line watch for drift anew; nothing where there is none."""
        if self._watched:
            self._watched.line.reset_drift()

    def try_photo(self, data: bytes, *, with_picture: bool) -> dict[str, Any]:
        """Score the bytes of one photo; ``picture`` is a JPEG as a data URL.

        Raises
        ------
        ImageError
            When they are no image, or one over the limit of pixels.
        """
        start = time.perf_counter()
        image = read_image(data, self.detector.max_pixels)
        decoded = time.perf_counter()
        result = self.detector(image)
        valid = result.state != "invalid"
        answer = {
            "state": result.state,
            "score": result.score if valid else None,
            "raw_score": result.raw_score if valid else None,
            "boxes": [box._asdict() for box in result.boxes],
            "width": image.shape[1],
            "height": image.shape[0],
            "ms": (decoded - start) * 1e3 + sum(result.timings.values()),
        }
        if with_picture:
            jpeg = picture(image, result, TRIED_SIDE)
            answer["picture"] = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        return answer
