"""Events as the sinks are given them."""

import dataclasses
import time

from fre_runtime.drift import DriftState
from fre_runtime.live.events import Event
from tests.live.conftest import picture, score_by_brightness


def event(number=0, value=200, line="top", **changes):
    image = picture(value)
    result = score_by_brightness(image)
    made = Event(
        line=line, source="camera:0", number=number, time=1_700_000_000.5 + number,
        state=result.state, score=result.score, raw_score=result.raw_score, latency_ms=12.5,
        boxes=tuple(result.boxes), result=result, image=image,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def stale(number=0, error="no frame for 6 s"):
    return event(
        number, state="stale", score=None, raw_score=None, latency_ms=None, boxes=(), error=error,
        result=None, image=None,
    )  # fmt: skip


def drifting(number=0, **changes):
    state = DriftState(True, "higher", 1.0, 0.9, 400)
    return event(number, drift=state, warning="the scores have become higher", **changes)


def wait_for(condition, timeout=20.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
