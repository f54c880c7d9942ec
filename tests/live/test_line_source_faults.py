"""A source that breaks off, falls silent, freezes or never answers."""

import itertools
import threading
import time

import numpy as np

from fre_runtime.errors import CaptureError
from fre_runtime.live.backoff import Backoff
from fre_runtime.live.frozen import FrozenPicture
from tests.live.conftest import Script, picture, score_by_brightness
from tests.live.lines import adds_up, finish, make_line, start


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


def test_backoff_doubles_up_to_its_cap_with_jitter():
    dice = iter([0.0, 0.0, 0.0, 1.0, 0.5, 0.0])
    backoff = Backoff(first=1, cap=4, jitter=0.5, uniform=lambda: next(dice))
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 2, 3]
    backoff.reset()
    assert backoff.next() == 1
    endless = Backoff()
    assert all(endless.next() <= 30 for _ in range(2000))
