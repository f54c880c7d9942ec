import dataclasses
import itertools
import threading
import time

import numpy as np
import pytest

from fre_runtime.errors import CaptureError, EngineError, UsageError
from fre_runtime.geometry import View
from fre_runtime.live.backoff import Backoff
from fre_runtime.live.console import Console, summary
from fre_runtime.live.frozen import FrozenPicture
from fre_runtime.live.line import Line
from fre_runtime.live.newest import NewestQueue
from fre_runtime.live.options import LineOptions
from fre_runtime.live.supervisor import run_lines
from fre_runtime.rect import Frame
from fre_runtime.result import Placement, Result
from tests.live.conftest import Recorder, Script, picture, rising_scores, score_by_brightness

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


def test_a_source_that_breaks_off_is_opened_again(recorder, stop):
    script = Script(
        [CaptureError("refused")], [picture(1), CaptureError("cut")], [OSError("driver")],
        [picture(2), lambda: time.sleep(30)],
    )  # fmt: skip
    line = make_line(script, recorder)
    thread = start(line, stop)
    recorder.wait(lambda events: any(event.score == 2 / 255 for event in events))
    finish(thread, stop)
    stale = [event.error for event in recorder.events if event.state == "stale"]
    assert [text.split(";")[0] for text in stale] == ["refused", "cut", "script: OSError: driver"]
    assert all("trying again in" in text for text in stale)
    assert line.reconnects == 3
    assert adds_up(line.counters)


def test_the_last_word_on_a_source_that_breaks_off_is_stale(recorder, stop):
    def slow(image):
        time.sleep(0.1)
        return score_by_brightness(image)

    script = Script([picture(10), picture(11), CaptureError("cut")], [CaptureError("gone")])
    thread = start(make_line(script, recorder, slow, queue=2), stop)
    recorder.wait(lambda events: len(events) >= 4)
    finish(thread, stop)
    assert recorder.states()[:4] == ["good", "good", "stale", "stale"]


def test_a_source_that_falls_silent_is_stale_and_opened_again(recorder, stop):
    silence = threading.Event()
    script = Script([picture(1), silence.wait], [picture(2), silence.wait])
    line = make_line(script, recorder, no_frame=0.2)
    thread = start(line, stop)
    recorder.wait(lambda events: [e.score for e in events].count(2 / 255) >= 1)
    assert "no frame for 0.2 s" in recorder.events[1].error
    assert recorder.events[1].state == "stale"
    silence.set()
    finish(thread, stop)
    assert adds_up(line.counters)


def test_a_camera_that_never_answers_does_not_gather_threads(recorder, stop):
    silence = threading.Event()
    script = Script([silence.wait])
    line = make_line(script, recorder, opening=0.1)
    thread = start(line, stop)
    recorder.wait(lambda events: any("3 attempts hang" in event.error for event in events))
    assert script.opened == 3
    assert set(recorder.states()) == {"stale"}
    silence.set()  # the driver comes back, and so does the line
    recorder.wait(lambda _: script.opened > 3)
    finish(thread, stop)


def test_a_frozen_picture_is_stale_and_noise_is_not(recorder, stop):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 9, (48, 64, 3), dtype=np.uint8) for _ in range(5)]
    pause = lambda: time.sleep(0.03)  # noqa: E731
    live = list(itertools.chain(*((image, pause) for image in noise)))
    still = [lambda: (pause(), picture(7))[1] for _ in range(12)]
    script = Script([*live, *still, *live, lambda: time.sleep(30)])
    line = make_line(script, recorder, frozen=0.2)
    thread = start(line, stop)
    recorder.wait(lambda events: len(events) and events[-1].state == "good" and "stale" in
                  [event.state for event in events])  # fmt: skip
    finish(thread, stop)
    stale = [event for event in recorder.events if event.state == "stale"]
    assert all(event.score is None for event in stale)
    assert "the very same picture for" in stale[0].error
    assert line.counters.failed >= len(stale) > 0
    assert adds_up(line.counters)


def test_frozen_needs_every_pixel_to_be_equal():
    frozen, image = FrozenPicture(), picture(5)
    assert frozen.seconds(image, 0.0) == 0
    assert frozen.seconds(image.copy(), 4.0) == 4
    moved = image.copy()
    moved[17, 3, 1] += 1  # beside the pixels that are compared first
    assert frozen.seconds(moved, 5.0) == 0
    assert frozen.seconds(picture(5, 24), 6.0) == 0


@pytest.mark.parametrize(
    ("detector", "error"),
    [
        (lambda _: (_ for _ in ()).throw(EngineError("the engine broke")), "the engine broke"),
        (lambda _: (_ for _ in ()).throw(MemoryError()), "MemoryError"),
        (
            lambda i: Result(np.nan, np.nan, "invalid", i.shape[:2], np.full((4, 4), np.nan)),
            "the score is not a number",
        ),
    ],
)
def test_without_a_score_a_picture_is_invalid(detector, error, recorder, stop):
    counters = make_line(Script([picture(1)], endless=False), recorder, detector).run(stop)
    (event,) = recorder.events
    assert (event.state, event.score, event.error) == ("invalid", None, error)
    assert (counters.failed, counters.scored) == (1, 0)


def test_a_model_that_hangs_makes_the_line_stale_and_is_not_waited_for(recorder, stop):
    hang = threading.Event()

    def detector(image):
        hang.wait(30)
        return score_by_brightness(image)

    line = make_line(Script([picture(1), picture(2)], endless=False), recorder, detector,
                     inference=0.2)  # fmt: skip
    counters = line.run(stop)
    assert [event.error for event in recorder.events] == ["no answer from the model for 0.2 s"]
    assert recorder.states() == ["stale"]
    assert counters.failed == 1
    assert adds_up(counters)
    hang.set()  # what comes too late changes nothing any more
    time.sleep(0.1)
    assert line.counters == counters
    assert len(recorder.events) == 1


def test_a_model_that_comes_back_goes_on(recorder, stop):
    hang = threading.Event()

    def detector(image):
        hang.wait(30)
        return score_by_brightness(image)

    line = make_line(Script([picture(1), lambda: time.sleep(30)]), recorder, detector,
                     inference=0.2, no_frame=60)  # fmt: skip
    thread = start(line, stop)
    recorder.wait(lambda events: len(events) == 1)
    hang.set()
    recorder.wait(lambda events: len(events) == 2)
    finish(thread, stop)
    assert recorder.states() == ["stale", "good"]
    assert adds_up(line.counters)


def test_a_picture_of_another_shape_is_invalid(recorder, stop):
    pictures = [picture(1), picture(2, 96, 128), picture(3, 48, 48), picture(4)]
    script = Script([*pictures, lambda: time.sleep(30)])
    line = make_line(script, recorder, queue=10)
    thread = start(line, stop)
    recorder.wait(lambda events: len(events) == 4)
    finish(thread, stop)
    assert recorder.states() == ["good", "good", "invalid", "good"]
    assert "48 x 48, the line began with 64 x 48" in recorder.events[2].error


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (View(regions=[[[0, 0], [32, 0], [32, 32], [0, 32]]], size=[48, 64]), "drawn on photos of"),
        (View(tile=[32, 32]), "the line began with"),
        (View(aspect="keep"), None),
    ],
)
def test_a_picture_of_another_size_has_its_regions_elsewhere(view, why, recorder, stop):
    def score(image):
        plan = view.plan(*image.shape[:2])
        result = score_by_brightness(image)
        return dataclasses.replace(result, placement=Placement(plan, Frame(*plan.region)))

    script = Script([picture(10), picture(10, 96, 128), picture(11)])  # the shape stays
    line = make_line(script, recorder, score, queue=9)
    thread = start(line, stop)
    recorder.wait(lambda events: len(events) >= 3)
    assert recorder.states()[:3] == ["good", "invalid" if why else "good", "good"]
    if why:
        error = recorder.events[1].error
        assert "is 128 x 96" in error
        assert f"{why} 64 x 48" in error
    finish(thread, stop)


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


def test_scores_that_rise_alarm_once_and_every_event_says_so(recorder, stop, capsys):
    calibration, steady, brighter = rising_scores()
    script = Script([*steady, *brighter], endless=False, patient=True)
    console = Console(stop, quiet=False, stdout=False)
    line = Line("line", score_by_brightness, script, [recorder, console], calibration=calibration)
    counters = line.run(stop)
    assert counters.anomalous == 0  # before the false rejects
    (warned,) = (event for event in recorder.events if event.warning)
    assert len(steady) < warned.number < counters.captured - 1
    assert [event.drift.drifting for event in recorder.events] == [
        event.number >= warned.number for event in recorder.events
    ]
    assert warned.drift.direction == "higher"
    assert warned.drift.scores == warned.number + 1
    assert capsys.readouterr().err == f"warning: line: {warned.warning}\n"
    assert "fre-calibrate" in warned.warning
    (told,) = summary([line], [])
    assert f"picture {warned.number}: {warned.warning}" in told


def test_a_drift_alarm_ends_by_itself_or_when_it_is_reset(recorder, stop):
    calibration, steady, brighter = rising_scores()
    pictures = [*steady, *brighter, *steady * 4, *brighter]
    script = Script(pictures, endless=False, patient=True)
    line = Line("line", score_by_brightness, script, [recorder], calibration=calibration)
    line.run(stop)
    first, over, second = (event for event in recorder.events if event.warning)
    assert first.drift.drifting
    assert not over.drift.drifting
    assert over.warning.startswith("the drift alarm is over")
    assert (
        len(steady) + len(brighter) < over.number < len(pictures) - len(brighter) <= second.number
    )
    assert (line.alarms, line.alarm.number) == (2, second.number)
    assert line.drift.drifting
    (told,) = summary([line], [])
    assert "; last of 2 alarms: drift alarm at " in told
    assert not told.endswith("(over)")
    line.reset_drift()
    assert not line.drift.drifting
    assert line.drift.scores == 0
    assert summary([line], [])[0].endswith("(over)")


def test_steady_scores_do_not(recorder, stop):
    calibration, steady, _ = rising_scores()
    script = Script(steady, endless=False, patient=True)
    line = Line("line", score_by_brightness, script, [recorder], calibration=calibration)
    line.run(stop)
    assert not any(event.drift.drifting or event.warning for event in recorder.events)
    assert summary([line], [])[0].endswith("; no drift alarm")


def test_the_drift_watch_goes_on_after_a_reconnect_and_takes_scores_only(recorder, stop):
    calibration, steady, _ = rising_scores()

    def detector(image):
        if image[0, 0, 0] == 255:
            raise EngineError("the engine broke")
        return score_by_brightness(image)

    script = Script([steady[0], picture(255), CaptureError("cut")],
                    [*steady[1:5], lambda: time.sleep(30)])  # fmt: skip
    options = LineOptions(queue=10, drift=2)
    line = Line("line", detector, script, [recorder], options, Backoff(**AT_ONCE), calibration)
    thread = start(line, stop)
    recorder.wait(lambda events: [e.state for e in events].count("good") == 5)
    finish(thread, stop)
    assert {event.state for event in recorder.events} == {"good", "invalid", "stale"}
    assert all(event.drift is not None for event in recorder.events)
    assert line.drift.scores == 3  # of 5, every second


@pytest.mark.parametrize(("drift", "scenes"), [(0, 100), (None, 19)])
def test_what_cannot_or_shall_not_be_watched_for_drift(drift, scenes, recorder, stop):
    calibration, steady, _ = rising_scores()
    calibration = dataclasses.replace(calibration, scenes=scenes)
    script = Script(steady[:2], endless=False, patient=True)
    options = LineOptions(drift=drift)
    line = Line("line", score_by_brightness, script, [recorder], options, calibration=calibration)
    line.run(stop)
    assert [event.drift for event in recorder.events] == [None, None]
    assert summary([line], [])[0].endswith("; not watched for drift")


def test_backoff_doubles_up_to_its_cap_with_jitter():
    dice = iter([0.0, 0.0, 0.0, 1.0, 0.5, 0.0])
    backoff = Backoff(first=1, cap=4, jitter=0.5, uniform=lambda: next(dice))
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 2, 3]
    backoff.reset()
    assert backoff.next() == 1
    endless = Backoff()
    assert all(endless.next() <= 30 for _ in range(2000))


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
