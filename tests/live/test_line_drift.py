"""A line that watches its scores for drift."""

import dataclasses
import time

import pytest

from fre_runtime.errors import CaptureError, EngineError
from fre_runtime.live.backoff import Backoff
from fre_runtime.live.console import Console, summary
from fre_runtime.live.line import Line
from fre_runtime.live.options import LineOptions
from tests.live.conftest import Script, picture, rising_scores, score_by_brightness
from tests.live.lines import AT_ONCE, finish, start


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
