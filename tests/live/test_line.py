"""A line from its source to its sinks: what is scored, dropped, counted and stopped."""

import itertools
import threading
import time

import pytest

from fre_runtime.errors import UsageError
from fre_runtime.live.newest import NewestQueue
from fre_runtime.live.options import LineOptions
from fre_runtime.live.supervisor import run_lines
from tests.live.conftest import Recorder, Script, picture, score_by_brightness
from tests.live.lines import adds_up, finish, make_line, start


def test_scores_until_the_source_ends(recorder, stop):
    script = Script([picture(10), picture(200), picture(20)], endless=False, patient=True)
    counters = make_line(script, recorder).run(stop)
    assert recorder.states() == ["good", "anomalous", "good"]
    assert [event.number for event in recorder.events] == [0, 1, 2]
    assert (counters.captured, counters.scored, counters.anomalous) == (3, 3, 1)
    assert adds_up(counters)
    bad = recorder.events[1]
    assert bad.latency_ms > 0
    assert bad.boxes[0].width == 64
    assert bad.image.shape == (48, 64, 3)


def test_the_newest_picture_wins(recorder, stop):
    free = threading.Event()

    def slow(image):
        assert free.wait(20)
        return score_by_brightness(image)

    def release():
        free.set()

    pictures = [picture(value) for value in range(30)]
    script = Script([*pictures, release], endless=False)
    counters = make_line(script, recorder, slow).run(stop)
    assert counters.captured == 30
    assert counters.dropped >= 28  # one was being scored, one waited
    assert recorder.events[-1].number == 29
    assert adds_up(counters)


def test_photos_in_a_folder_wait_instead(recorder, stop):
    def slow(image):
        time.sleep(0.01)
        return score_by_brightness(image)

    script = Script([picture(value) for value in range(20)], endless=False, patient=True)
    counters = make_line(script, recorder, slow).run(stop)
    assert (counters.captured, counters.scored, counters.dropped) == (20, 20, 0)


def test_a_clock_that_jumps_changes_nothing(recorder, stop, monkeypatch):
    jumps = itertools.cycle([1e9, 0.0, 4e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    pictures = [picture(value) for value in range(20)]
    script = Script([*pictures, lambda: time.sleep(30)])
    line = make_line(script, recorder, queue=20)
    thread = start(line, stop)
    recorder.wait(lambda events: len(events) == 20)
    finish(thread, stop)
    assert recorder.states() == ["good"] * 20
    assert all(0 <= event.latency_ms < 20_000 for event in recorder.events)


def test_a_sink_that_fails_never_stops_the_line(recorder, stop):
    class Broken:
        def emit(self, event):
            raise RuntimeError("broken")

        def close(self):
            pass

    script = Script([picture(1), picture(2)], endless=False, patient=True)
    line = make_line(script, recorder, sinks=[Broken(), recorder])
    assert line.run(stop).scored == 2
    assert recorder.states() == ["good", "good"]
    assert line.unheard == 2


def test_stops_at_once_and_what_waits_is_dropped(recorder, stop):
    script = Script([lambda: picture(int(time.monotonic() * 1e3) % 99)] * 100_000)
    line = make_line(script, recorder)
    thread = start(line, stop)
    recorder.wait(lambda events: len(events) > 5)
    finish(thread, stop)
    assert adds_up(line.counters)


def test_lines_run_side_by_side_and_a_fault_is_shown_at_the_end(stop):
    recorders = [Recorder(), Recorder()]
    lines = [
        make_line(Script([picture(i)] * 3, endless=False, patient=True), recorder)
        for i, recorder in enumerate(recorders)
    ]
    run_lines(lines, stop)
    assert [recorder.states() for recorder in recorders] == [["good"] * 3] * 2
    broken = make_line(Script([picture(1)], endless=False), recorders[0])
    broken.run = lambda stop: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run_lines([broken, make_line(Script([picture(1)], endless=False), recorders[1])], stop)
    assert len(recorders[1].events) == 4


def test_the_queue_keeps_the_newest():
    queue = NewestQueue(2)
    assert [queue.put(i) for i in range(4)] == [[], [], [0], [1]]
    assert not queue.wait_for_room(0.01)
    assert queue.get() == 2
    assert queue.wait_for_room(0.01)
    assert queue.close(discard=True) == [3]
    assert queue.put(9) == [9]
    assert queue.get() is None


@pytest.mark.parametrize(
    "limits", [{"queue": 0}, {"no_frame": -1}, {"inference": float("inf")}, {"drift": -1}]
)
def test_limits_that_make_no_sense(limits):
    with pytest.raises(UsageError, match=next(iter(limits))):
        LineOptions(**limits)
