"""What the page shows of a line: the newest picture, the recent scores, the last anomalies.

A `Board` is a sink. It only keeps references and, for anomalies, a small copy; JPEGs are made
when somebody asks for them, once for all who do, so watching never holds the line up.
"""

import itertools
import secrets
import threading
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np

from fre_runtime.image import Image, encode_image
from fre_runtime.live.events import Event
from fre_runtime.overlay import tinted
from fre_runtime.result import Result

HISTORY = 2000
"""Scores kept for the chart."""

ANOMALIES = 24
"""Anomalies kept as pictures."""

LIVE_SIDE = 960
"""Longest side of the live picture, in pixels."""

ANOMALY_SIDE = 640
"""Longest side of a kept anomaly, in pixels: 24 of them take 70 MB at most, maps included."""

JPEG_QUALITY = 82
"""A live picture of 960 x 720 takes about 100 KB."""


@dataclass(frozen=True, eq=False)
class _Kept:
    """An event's picture, with what was found in it."""

    number: int
    event: Event
    image: Image
    result: Result | None


class Board:
    """Keeps what is newest of one line, in bounded memory; a sink, safe to read from threads.

    Parameters
    ----------
    history
        Scores kept for the chart.
    anomalies
        Anomalies kept as pictures.
    """

    def __init__(self, history: int = HISTORY, anomalies: int = ANOMALIES) -> None:
        self.run = secrets.token_hex(4)
        """Differs each time: readers who counted events of an earlier process start anew."""
        self._points: deque[tuple[int, float, float | None, str]] = deque(maxlen=history)
        self._latencies: deque[float] = deque(maxlen=history)
        self._arrivals: deque[float] = deque(maxlen=50)
        self._anomalies: deque[_Kept] = deque(maxlen=anomalies)
        self._states: Counter[str] = Counter()
        self._number = itertools.count(1)
        self._last: Event | None = None
        self._last_at = 0.0
        self._picture: _Kept | None = None
        self._jpegs: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._encoding = threading.Lock()

    def emit(self, event: Event) -> None:
        """Take one event; the only work is shrinking the picture of an anomaly."""
        image, result = event.image, event.result
        event = replace(event, image=None, result=None)  # no picture is kept by accident
        small = None
        if image is not None and result is not None and event.state == "anomalous":
            shrunk = _shrunk(image, ANOMALY_SIDE)
            small = shrunk, _reduced(result, shrunk)
        with self._lock:
            number = next(self._number)
            self._last, self._last_at = event, time.monotonic()
            self._states[event.state] += 1
            self._points.append((number, event.time, event.score, event.state))
            if event.latency_ms is not None:
                self._latencies.append(event.latency_ms)
            if image is not None:
                self._arrivals.append(time.monotonic())
                self._picture = _Kept(number, event, image, result)
            if small is not None:
                self._anomalies.append(_Kept(number, event, *small))

    def close(self) -> None:
        """Nothing to deliver: whoever watches may still look at what came last."""

    def state(self, since: int = 0) -> dict[str, Any]:
        """What is known now, JSON-ready; of the scores only those after number ``since``.

        Keys: ``run``; ``last``, the newest event or None, and its ``age`` in seconds;
        ``picture``, the number of the newest picture or None; ``points``, rows of number, time,
        score, state; ``states``, counts; ``latency_ms`` and ``per_second``; ``anomalies``, the
        newest first.
        """
        with self._lock:
            newer = itertools.takewhile(lambda point: point[0] > since, reversed(self._points))
            points = list(newer)[::-1]
            latencies, arrivals = list(self._latencies), list(self._arrivals)
            last, age = self._last, time.monotonic() - self._last_at
            picture = self._picture
            anomalies, states = list(self._anomalies)[::-1], dict(self._states)
        return {
            "run": self.run,
            "last": _summary(last) if last else None,
            "age": age if last else None,
            "picture": picture.number if picture else None,
            "points": points,
            "states": states,
            "latency_ms": _percentiles(latencies),
            "per_second": _rate(arrivals),
            "anomalies": [{"id": kept.number, **_summary(kept.event)} for kept in anomalies],
        }

    def picture(self) -> bytes | None:
        """The newest picture with what was found in it, as JPEG; None before the first."""
        with self._lock:
            kept = self._picture
        return None if kept is None else self._jpeg(kept, LIVE_SIDE)

    def anomaly(self, number: int) -> bytes | None:
        """One of the last anomalies as JPEG, or None when it is no longer kept."""
        with self._lock:
            kept = next((kept for kept in self._anomalies if kept.number == number), None)
        return None if kept is None else self._jpeg(kept, ANOMALY_SIDE)

    def _jpeg(self, kept: _Kept, side: int) -> bytes:
        """Encode once, whoever asks; two sizes of one picture are never both needed for long."""
        with self._encoding:
            key = kept.number * 2 + (side == LIVE_SIDE)
            if key not in self._jpegs:
                self._jpegs[key] = picture(kept.image, kept.result, side)
                while len(self._jpegs) > ANOMALIES + 4:
                    del self._jpegs[next(iter(self._jpegs))]
            return self._jpegs[key]


def picture(image: Image, result: Result | None, side: int) -> bytes:
    """Encode a uint8 (H, W, 3) photo as JPEG, about ``side`` pixels long, heat map over it.

    Small photos are enlarged by whole numbers, so that outlines stay fine lines.
    """
    enlarge = side // max(image.shape[:2])
    if enlarge > 1:
        canvas = cv2.resize(image, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)
    else:
        canvas = _shrunk(image, side)
    small = np.asarray(canvas, np.uint8)
    return encode_image(small if result is None else tinted(small, result), ".jpg", JPEG_QUALITY)


def _shrunk(image: Image, side: int) -> Image:
    """A copy of at most ``side`` pixels in length that does not keep the large one alive."""
    scale = min(1.0, side / max(image.shape[:2]))
    height, width = (max(1, round(pixels * scale)) for pixels in image.shape[:2])
    return np.array(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _reduced(result: Result, small: Image) -> Result:
    """A copy that draws the same heat over a small picture and takes little more memory than it.

    It leaves the maps behind that were lifted to the photo's size, and a merged one of many tiles.
    """
    height, width = small.shape[:2]
    if result.native_map.size <= height * width:
        return replace(result, tiles=())
    return replace(result, tiles=(), native_map=result.map_at(height, width), placement=None)


def _summary(event: Event) -> dict[str, Any]:
    return {
        "source": event.source,
        "number": event.number,
        "time": event.time,
        "state": event.state,
        "score": event.score,
        "raw_score": event.raw_score,
        "latency_ms": event.latency_ms,
        "error": event.error,
        "drift": asdict(event.drift) if event.drift else None,
    }


def _percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    median, p95 = np.percentile(values, [50, 95])
    return {"median": float(median), "p95": float(p95), "max": max(values)}


def _rate(arrivals: list[float]) -> float | None:
    """Pictures a second over the last few, None where there are too few or they are long ago."""
    if len(arrivals) < 2 or time.monotonic() - arrivals[-1] > 10:
        return None
    return (len(arrivals) - 1) / max(arrivals[-1] - arrivals[0], 1e-3)
