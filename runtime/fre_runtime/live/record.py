"""An event as JSON."""

import datetime
import json
import re
from dataclasses import asdict
from typing import Any

from fre_runtime.live.events import Event


def record(event: Event) -> dict[str, Any]:
    """The event as a JSON-ready dictionary; scores are null unless good or anomalous."""
    return {
        "line": event.line,
        "source": event.source,
        "number": event.number,
        "time": timestamp(event),
        "state": event.state,
        "score": event.score,
        "raw_score": event.raw_score,
        "boxes": [box._asdict() for box in event.boxes],
        "ms": event.latency_ms,
        "error": event.error,
        "drift": asdict(event.drift) if event.drift else None,
        "warning": event.warning,
    }


def encode(event: Event) -> bytes:
    """The event as one line of JSON in UTF-8, without the line's end."""
    text = json.dumps(record(event), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace")  # names of files need not be valid Unicode


def timestamp(event: Event) -> str:
    """When the picture was captured, as ISO 8601 in UTC."""
    moment = datetime.datetime.fromtimestamp(event.time, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


FILE_NAME = r"\d{8}T\d{6}\.\d{3}Z_.+_\d+"
"""What `file_name` gives, as a regular expression."""


def file_name(event: Event) -> str:
    """A name without suffix that sorts by time and is a valid file name everywhere."""
    moment = re.sub(r"[-:]", "", timestamp(event))
    return f"{moment}_{slug(event.line)}_{event.number}"


def slug(name: str) -> str:
    """``name`` with all but letters, digits, dots and dashes replaced; of a long one the end."""
    return re.sub(r"[^\w.-]+", "-", name)[-64:].strip("-.") or "line"
