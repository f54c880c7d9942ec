"""Pictures without a score: the model fails or hangs, or they are of another view."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from fre_runtime.errors import EngineError
from fre_runtime.geometry import View
from fre_runtime.rect import Frame
from fre_runtime.result import Placement, Result
from tests.live.conftest import Script, picture, score_by_brightness
from tests.live.lines import adds_up, finish, make_line, start


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
