"""Lines with sources and models that a test plays."""

import threading

from fre_runtime.live.backoff import Backoff
from fre_runtime.live.line import Line
from fre_runtime.live.options import LineOptions
from tests.live.conftest import score_by_brightness

AT_ONCE = {"first": 0.01, "cap": 0.02}


def make_line(capture, recorder, detector=score_by_brightness, sinks=None, **limits):
    options = LineOptions(**limits)
    return Line("line", detector, capture, sinks or [recorder], options, Backoff(**AT_ONCE))


def start(line, stop):
    thread = threading.Thread(target=line.run, args=(stop,), daemon=True)
    thread.start()
    return thread


def finish(thread, stop):
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


def adds_up(counters):
    total = counters.scored + counters.dropped + counters.failed
    return counters.captured == total and counters.waiting == 0
