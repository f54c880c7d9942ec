"""One picture's result as it is written: a line of JSON."""

import dataclasses
from typing import Any

from fre_runtime.detector import Detector
from fre_runtime.errors import ImageError
from fre_runtime.result import Result
from fre_runtime.sources import Frame


def scored(detector: Detector, frame: Frame) -> tuple[Frame, Result | None]:
    """Score a frame; where it does not fit the model's view, the frame says why."""
    if frame.image is None:
        return frame, None
    try:
        return frame, detector(frame.image)
    except ImageError as error:
        said = f"{frame.source}: {error}"
        return dataclasses.replace(frame, image=None, error=said), None


def record(frame: Frame, result: Result | None) -> dict[str, Any]:
    """One frame's result as a JSON-ready dictionary; scores are null when invalid."""
    head: dict[str, Any] = {"source": frame.source, "frame": frame.number}
    if result is None or result.state == "invalid":
        reason = frame.error or "the score is not a number"
        empty: dict[str, Any] = {"score": None, "raw_score": None, "boxes": [], "ms": None}
        return {**head, "state": "invalid", **empty, "error": reason}
    return {
        **head,
        "state": result.state,
        "score": result.score,
        "raw_score": result.raw_score,
        "boxes": [box._asdict() for box in result.boxes],
        "ms": frame.decode_ms + sum(result.timings.values()),
    }
