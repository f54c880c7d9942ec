"""The board keeps what is newest, in bounded memory."""

import gc
import weakref

import numpy as np

from fre_runtime import read_image
from fre_runtime.geometry import View
from fre_runtime.overlay import tinted
from fre_runtime.rect import Frame
from fre_runtime.result import Placement, Result, Tile
from fre_runtime.serve.board import ANOMALY_SIDE, LIVE_SIDE, Board, picture


def test_an_empty_board_claims_nothing():
    state = Board().state()
    assert (state["last"], state["age"], state["picture"], state["points"]) == (
        None,
        None,
        None,
        [],
    )
    assert (state["latency_ms"], state["per_second"], state["anomalies"]) == (None, None, [])
    assert Board().picture() is None
    assert Board().anomaly(1) is None


def test_only_new_points_are_told_and_old_ones_are_forgotten(make_event):
    board = Board(history=3)
    for number in range(5):
        board.emit(make_event(number))
    assert [point[0] for point in board.state()["points"]] == [3, 4, 5]
    assert [point[0] for point in board.state(since=4)["points"]] == [5]
    assert board.state(since=5)["points"] == []
    assert board.state()["states"] == {"good": 5}
    assert board.state()["latency_ms"] == {"median": 8.0, "p95": 8.9, "max": 9.0}


def test_events_without_picture_or_score_are_shown_as_what_they_are(make_event):
    board = Board()
    board.emit(make_event(0))
    gone = {"score": None, "raw_score": None, "result": None, "image": None, "latency_ms": None}
    board.emit(make_event(1, "stale", error="no frame for 6 s", **gone))
    state = board.state()
    assert (state["last"]["state"], state["last"]["error"]) == ("stale", "no frame for 6 s")
    assert state["last"]["score"] is None
    assert state["picture"] == 1, "the last picture stays, the page marks it as old"
    assert state["points"][-1][2:] == (None, "stale")


def test_anomalies_keep_a_small_copy_and_let_the_photo_go(make_photo, detector, make_event):
    board = Board(anomalies=2)
    large = make_photo(3, 900, 1500)
    result = detector(large)
    assert result.anomaly_map.shape == (900, 1500)  # a large array, cached in the result
    held = weakref.ref(large), weakref.ref(result.anomaly_map)
    board.emit(make_event(1, "anomalous", image=large, result=result))
    board.emit(make_event(2))  # another picture is the newest now
    del large, result
    gc.collect()
    assert [reference() for reference in held] == [None, None]
    kept = board.state()["anomalies"]
    assert [anomaly["number"] for anomaly in kept] == [1]
    assert read_image(board.anomaly(kept[0]["id"])).shape == (384, ANOMALY_SIDE, 3)
    for number in (3, 4):
        board.emit(make_event(number, "anomalous"))
    assert [anomaly["number"] for anomaly in board.state()["anomalies"]] == [4, 3]
    assert board.anomaly(kept[0]["id"]) is None


def test_anomalies_of_tiled_photos_do_not_keep_the_merged_map(make_photo, make_event):
    large = make_photo(3, 1280, 1280)
    tile = View(tile=[640, 640])
    merged = np.random.default_rng(0).uniform(0, 1, (1500, 1500)).astype(np.float32)
    frame = Frame(0, 0, 1280, 1280)
    result = Result(
        0.9, 3.0, "anomalous", (1280, 1280), merged,
        placement=Placement(tile.plan(1280, 1280), frame),
        tiles=(Tile(0, 0, 640, 640, 0.9),),
    )  # fmt: skip
    board = Board()
    board.emit(make_event(0, "anomalous", image=large, result=result))
    kept = board._anomalies[0]
    assert kept.image.shape == (ANOMALY_SIDE, ANOMALY_SIDE, 3)
    assert (kept.result.native_map.size, kept.result.tiles) == (ANOMALY_SIDE**2, ())
    np.testing.assert_array_equal(tinted(kept.image, kept.result), tinted(kept.image, result))


def test_the_picture_is_encoded_once_for_all_who_watch(make_event, monkeypatch):
    board = Board()
    board.emit(make_event(1))
    first = board.picture()
    assert first is not None
    assert board.picture() is first
    board.emit(make_event(2))
    assert board.picture() != first


def test_the_picture_shows_the_heat_of_the_whole_photo(make_photo, detector):
    photo = make_photo(5, 700, 2400)
    plain = read_image(picture(photo, None, LIVE_SIDE)).astype(int)
    assert plain.shape == (280, 960, 3)
    result = detector(photo)
    result.native_map[:] = 0
    result.native_map[-1, -1] = 1  # the lower right corner
    tinted = read_image(picture(photo, result, LIVE_SIDE)).astype(int)
    changed = np.abs(tinted - plain).max(2) > 25
    assert changed[200:, 800:].mean() > 0.2
    assert not changed[:140, :480].any()


def test_small_photos_are_enlarged(make_photo):
    assert read_image(picture(make_photo(1, 80, 96), None, 960)).shape == (800, 960, 3)
