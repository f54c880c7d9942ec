"""What lies between a line and a sink: bounded, in order, and never waited for."""

import threading
import time

import pytest

from fre_runtime.live.backoff import Backoff
from fre_runtime.live.sinks import outlet
from fre_runtime.live.sinks.outlet import ALARMS, Outlet, Undeliverable
from tests.live.conftest import Recorder, picture
from tests.live.sink_events import drifting, event, wait_for


class Reluctant(Recorder):
    """Fails so many times, with an error of its own choice."""

    def __init__(self, failures, error=None):
        super().__init__()
        self.left, self.error = failures, error or OSError("away")

    def emit(self, event):
        if self.left:
            self.left -= 1
            raise self.error
        super().emit(event)


def test_outlet_delivers_in_order_and_without_pictures():
    recorder = Recorder()
    out = Outlet(recorder, "x", states=ALARMS)
    for number in range(5):
        out.emit(event(number, value=200 if number else 10))
    out.close()
    assert [e.number for e in recorder.events] == [1, 2, 3, 4]  # 0 is good
    assert recorder.events[0].image is None
    assert recorder.closed
    assert (out.delivered, out.lost, out.waiting) == (4, 0, 0)


@pytest.mark.parametrize(("pictures", "numbers"), [(False, [1]), (True, [])])
def test_a_warning_reaches_whoever_wants_other_states_only(pictures, numbers):
    recorder = Recorder()
    out = Outlet(recorder, "x", states=ALARMS, pictures=pictures)
    out.emit(event(0, value=10))
    out.emit(drifting(1, value=10))
    out.close()
    assert [e.number for e in recorder.events] == numbers


def test_outlet_tries_again_only_where_that_helps():
    recorder = Reluctant(3)
    out = Outlet(recorder, "x", retry=True, backoff=Backoff(0.001, 0.002))
    out.emit(event())
    wait_for(lambda: out.delivered == 1)
    out.close()
    assert out.lost == 0
    assert out.trouble == "away"
    for sink, retry in ((Reluctant(1), False), (Reluctant(1, Undeliverable("no")), True)):
        out = Outlet(sink, "x", retry=retry)
        out.emit(event(0))
        out.emit(event(1))
        out.close()
        assert [e.number for e in sink.events] == [1]
        assert (out.delivered, out.lost) == (1, 1)


def test_outlet_is_bounded_and_counts_what_it_loses(monkeypatch):
    monkeypatch.setattr(outlet, "BUFFER", 10)
    monkeypatch.setattr(outlet, "CLOSE_SECONDS", 0.2)
    out = Outlet(Reluctant(10**9), "x", retry=True, backoff=Backoff(60, 60, 0))
    for number in range(30):
        out.emit(event(number))
    assert out.waiting <= 11
    out.close()
    assert (out.delivered, out.lost, out.waiting) == (0, 30, 0)


def test_an_event_that_always_fails_gives_way_to_those_behind_it(monkeypatch):
    monkeypatch.setattr(outlet, "BUFFER", 3)

    class Picky(Recorder):
        def emit(self, event):
            if event.number == 0:
                raise OSError("not this one")
            super().emit(event)

    sink = Picky()
    out = Outlet(sink, "x", retry=True, backoff=Backoff(60, 60, 0))
    out.emit(event(0))
    wait_for(lambda: out.trouble)
    for number in range(1, 4):
        out.emit(event(number))
    wait_for(lambda: out.delivered == 3)
    out.close()
    assert [e.number for e in sink.events] == [1, 2, 3]
    assert (out.lost, out.trouble) == (1, "not this one")


def test_outlet_never_waits_for_a_sink_that_hangs(monkeypatch):
    monkeypatch.setattr(outlet, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(outlet, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(outlet, "PICTURES", 2)
    hang = threading.Event()

    class Hanging(Recorder):
        def emit(self, event):
            hang.wait(30)

    out = Outlet(Hanging(), "x", pictures=True)
    start = time.monotonic()
    for number in range(200):
        out.emit(event(number))
    assert time.monotonic() - start < 10  # 200 times 0.05 s, had it waited each time
    out.close()
    assert (out.delivered, out.lost) == (0, 200)
    hang.set()  # what comes too late is not counted twice
    wait_for(lambda: not out._thread.is_alive())
    assert (out.delivered, out.lost) == (0, 200)


def test_outlet_holds_few_of_large_pictures(monkeypatch):
    monkeypatch.setattr(outlet, "CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(outlet, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(outlet, "PICTURE_BYTES", 2 * picture(0).nbytes)
    hang = threading.Event()

    class Hanging(Recorder):
        def emit(self, event):
            hang.wait(30)

    out = Outlet(Hanging(), "x", pictures=True)
    out.emit(event(0))
    wait_for(lambda: out._busy)
    for number in range(1, 9):
        out.emit(event(number))
    assert [waiting.number for waiting in out._buffer] == [7, 8]
    assert out.lost == 6
    out.emit(event(9, image=picture(0, 96, 128)))  # four times as large
    assert [waiting.number for waiting in out._buffer] == [8, 9]
    out.emit(event(10))
    assert [waiting.number for waiting in out._buffer] == [10]
    out.close()
    hang.set()
