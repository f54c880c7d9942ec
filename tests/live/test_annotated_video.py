"""The line as a video with its scores."""

import shutil

import cv2
import numpy as np

from fre_runtime.live.sinks import annotated_video, quota
from fre_runtime.live.sinks.annotated_video import AnnotatedVideo
from fre_runtime.live.sinks.outlet import Outlet
from tests.live.conftest import score_by_brightness
from tests.live.sink_events import event, stale, wait_for


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    shapes = []
    while (got := capture.read())[0]:
        shapes.append(got[1].shape)
    return shapes


def test_video_begins_anew_where_the_size_changes(tmp_path):
    sink = AnnotatedVideo(tmp_path)
    for number in range(3):
        sink.emit(event(number))
    larger = np.full((481, 641, 3), 9, np.uint8)
    for number in (3, 4):
        sink.emit(event(number, image=larger, result=score_by_brightness(larger)))
    sink.emit(event(5, state="invalid", score=None, result=None, image=larger, error="x"))
    sink.emit(stale())
    sink.close()
    shapes = [frames_of(path) for path in sorted(tmp_path.iterdir())]
    assert [len(one) for one in shapes] == [3, 3]
    assert shapes[1][0][:2] == (506, 640)


def test_video_is_cut_into_pieces_below_the_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(annotated_video, "PIECE_FRAMES", 5)
    rng = np.random.default_rng(0)
    sink = AnnotatedVideo(tmp_path, quota=800_000)
    for number in range(40):
        noise = rng.integers(0, 255, (240, 320, 3), np.uint8)
        sink.emit(event(number, image=noise, result=score_by_brightness(noise)))
    sink.close()
    pieces = sorted(tmp_path.iterdir())
    assert 1 < len(pieces) < 8
    assert sum(path.stat().st_size for path in pieces) <= 800_000
    assert len(frames_of(pieces[-1])) == 5


def test_many_lines_share_the_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(annotated_video, "PIECE_FRAMES", 10**6)  # so that only bytes count
    rng = np.random.default_rng(0)
    sink = AnnotatedVideo(tmp_path, quota=1_500_000)
    for number in range(120):
        noise = rng.integers(0, 255, (120, 160, 3), np.uint8)
        result = score_by_brightness(noise)
        sink.emit(event(number, line=f"line {number % 6}", image=noise, result=result))
    sink.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1_500_000
    newest = max(tmp_path.iterdir())
    assert int(newest.stem.rpartition("_")[2]) > 60


def test_only_what_is_ours_is_removed(tmp_path):
    old = tmp_path / "recording.mkv"
    old.write_bytes(bytes(900_000))
    mine = tmp_path / "20200101T000000.000Z_top_1.mkv"
    mine.write_bytes(bytes(900_000))
    sink = AnnotatedVideo(tmp_path, quota=950_000)
    sink.emit(event(2))
    sink.close()
    assert old.exists()
    assert not mine.exists()


def test_video_goes_on_when_its_folder_is_removed(tmp_path):
    folder = tmp_path / "video"
    sink = AnnotatedVideo(folder)
    sink.emit(event(0))
    shutil.rmtree(folder)
    sink.emit(event(1))
    sink.close()
    assert [len(frames_of(path)) for path in folder.iterdir()] == [1]


def test_video_loses_pictures_on_a_full_disk_and_goes_on(tmp_path, monkeypatch):
    out = Outlet(AnnotatedVideo(tmp_path), "x", pictures=True)
    monkeypatch.setattr(quota, "RESERVE_BYTES", 1 << 62)
    out.emit(event(0))
    wait_for(lambda: out.lost == 1)
    monkeypatch.setattr(quota, "RESERVE_BYTES", 0)
    out.emit(event(1))
    out.close()
    assert (out.delivered, out.lost) == (1, 1)
    assert [len(frames_of(path)) for path in tmp_path.iterdir()] == [1]
