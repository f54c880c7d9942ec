"""One picture's result as it is written: a line of JSON."""

from typing import Any

from fre_runtime.result import Result
from fre_runtime.sources import Frame


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
