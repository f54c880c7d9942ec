import dataclasses
import json
import os
import resource
import signal
import socket
import threading
import time
import urllib.request

import cv2
import numpy as np
import pytest

from fre_runtime.drift import DriftState
from fre_runtime.errors import OutputError, UsageError
from fre_runtime.image import read_image
from fre_runtime.live.backoff import Backoff
from fre_runtime.live.events import Counters, Event
from fre_runtime.live.record import file_name, record
from fre_runtime.live.sinks import annotated_video, outlet, quota
from fre_runtime.live.sinks.annotated_video import AnnotatedVideo
from fre_runtime.live.sinks.anomaly_images import AnomalyImages
from fre_runtime.live.sinks.json_lines import JsonLines, StdoutLines
from fre_runtime.live.sinks.metrics import Metrics
from fre_runtime.live.sinks.outlet import ALARMS, Outlet, Undeliverable
from fre_runtime.live.sinks.webhook import Webhook
from tests.live.conftest import Recorder, Script, picture, score_by_brightness


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


@pytest.fixture
def small_files():
    """Files of this process cannot grow beyond so many bytes: a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)


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


def test_record_is_json_and_a_missing_score_is_null():
    told = json.loads(json.dumps(record(event(3))))
    assert told["time"] == "2023-11-14T22:13:23.500Z"
    assert (told["line"], told["number"], told["state"]) == ("top", 3, "anomalous")
    assert told["boxes"][0]["width"] == 64
    assert (told["drift"], told["warning"]) == (None, None)
    told = json.loads(json.dumps(record(drifting())))
    assert (told["drift"]["drifting"], told["drift"]["direction"]) == (True, "higher")
    assert told["warning"] == "the scores have become higher"
    told = record(stale())
    assert (told["state"], told["score"], told["raw_score"], told["ms"]) == ("stale", *[None] * 3)
    assert file_name(event(line="../a b/ü:*")) == "20231114T221320.500Z_a-b-ü_0"


# --- Outlet


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
    out.close()
    hang.set()


# --- JSON lines


def test_json_lines_append(tmp_path):
    for number in range(2):
        sink = JsonLines(tmp_path / "new" / "events.jsonl")
        sink.emit(event(number))
        sink.close()
    lines = (tmp_path / "new/events.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0, 1]
    with pytest.raises(OutputError, match="cannot be written"):
        JsonLines(tmp_path)


def test_json_lines_survive_a_full_disk(tmp_path, small_files):
    path = tmp_path / "events.jsonl"
    sink = JsonLines(path)
    sink.emit(event(0))
    small_files(path.stat().st_size + 50)
    for _ in range(2):
        with pytest.raises(OSError, match=r"could be written|too large"):
            sink.emit(event(1))
    small_files(10**6)
    sink.emit(event(2))
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 2]
    full = JsonLines(type(path)("/dev/full"))
    with pytest.raises(OSError, match="No space"):
        full.emit(event(0))


def test_stdout_whose_reader_has_gone_ends_the_run(monkeypatch, capsys):
    stop = threading.Event()
    StdoutLines(stop).emit(event(1))
    assert json.loads(capsys.readouterr().out)["number"] == 1
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        with pytest.raises(BrokenPipeError):
            StdoutLines(stop).emit(event())
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            gone.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    assert stop.is_set()


# --- Images


def test_images_of_anomalies(tmp_path):
    sink = AnomalyImages(tmp_path / "out")
    sink.emit(event(7))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["20231114T221327.500Z_top_7.jpg", "20231114T221327.500Z_top_7_map.jpg"]
    assert read_image(tmp_path / "out" / names[0]).shape == (48, 64, 3)
    sink.emit(stale())  # nothing to be seen
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_images_stay_below_the_quota_by_removing_the_oldest(tmp_path):
    (tmp_path / "notes.txt").write_text("not ours")
    one = AnomalyImages(tmp_path)
    one.emit(event(0))
    size = sum(path.stat().st_size for path in tmp_path.glob("*.jpg"))
    sink = AnomalyImages(tmp_path, quota=3 * size)  # as after a start: counts what is there
    for number in range(1, 8):
        sink.emit(event(number))
        assert sum(path.stat().st_size for path in tmp_path.glob("*.jpg")) <= 3 * size
    left = sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert len(left) == 6
    assert left[-1].endswith("_7_map.jpg")
    assert not any("_top_0" in name for name in left)
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(OSError, match="more than the quota"):
        AnomalyImages(tmp_path, quota=100).emit(event(9))


def test_images_survive_a_full_disk_and_a_folder_that_goes_away(tmp_path, small_files, monkeypatch):
    folder = tmp_path / "out"
    out = Outlet(AnomalyImages(folder), "x", pictures=True)
    small_files(100)
    out.emit(event(0))
    wait_for(lambda: out.lost == 1)
    assert list(folder.iterdir()) == []  # nothing half-written
    small_files(10**7)
    folder.rmdir()
    out.emit(event(1))
    wait_for(lambda: out.delivered == 1)
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setattr(quota, "RESERVE_BYTES", 1 << 62)
    out.emit(event(2))
    wait_for(lambda: out.lost == 2)
    assert "MiB are free" in out.trouble
    out.close()


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be used"):
        AnomalyImages(tmp_path / "file" / "x")


# --- Video


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


# --- Webhook


def answering(*answers):
    """A handler that answers with one status after the other, the last again and again."""

    def handle(connection, number):
        data = connection.recv(65536)
        while b"\r\n\r\n" not in data or not data.endswith(b"}"):
            data += connection.recv(65536)
        handle.bodies.append(data)
        status = answers[min(number, len(answers) - 1)]
        connection.sendall(b"HTTP/1.0 %d X\r\nLocation: http://127.0.0.1:9/\r\n\r\n" % status)

    handle.bodies = []
    return handle


def test_webhook_posts_json(serve):
    handle = answering(200)
    server = serve(handle)
    Webhook(f"http://user:secret@127.0.0.1:{server.port}/x", {"X-Station": "7"}).emit(event(3))
    head, _, body = handle.bodies[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1")
    assert b"Authorization: Basic dXNlcjpzZWNyZXQ=" in head
    assert b"X-Station: 7" in head
    assert json.loads(body)["number"] == 3


@pytest.mark.parametrize(
    ("answers", "delivered", "lost"),
    [((503, 429, 200), 1, 0), ((404,), 0, 1), ((302,), 0, 1)],
)
def test_webhook_tries_again_only_where_that_helps(answers, delivered, lost, serve):
    server = serve(answering(*answers))
    hook = Webhook(f"http://127.0.0.1:{server.port}")
    out = Outlet(hook, "x", retry=True, backoff=Backoff(0.001, 0.002))
    out.emit(event())
    wait_for(lambda: out.delivered + out.lost == 1)
    out.close()
    assert (out.delivered, out.lost) == (delivered, lost)
    assert server.connections == len(answers)


def test_an_unreachable_webhook_is_buffered_and_then_delivered(serve):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    out = Outlet(Webhook(f"http://127.0.0.1:{port}/"), "x", retry=True, backoff=Backoff(0.01, 0.02))
    for number in range(5):
        out.emit(event(number))
    wait_for(lambda: out.trouble is not None)
    assert "refused" in out.trouble
    handle = answering(200)
    server = serve(handle, port)
    wait_for(lambda: out.delivered == 5)
    out.close()
    told = [json.loads(body.partition(b"\r\n\r\n")[2])["number"] for body in handle.bodies]
    assert told == [0, 1, 2, 3, 4]
    assert server.connections == 5


def test_a_webhook_that_is_no_address():
    with pytest.raises(UsageError, match="no address of this kind") as caught:
        Webhook("ftp://user:secret@host/x")
    assert "secret" not in str(caught.value)


# --- Metrics


def scrape(metrics):
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as response:
        return response.read().decode()


def test_metrics_in_base_units(stop):
    pytest.importorskip("prometheus_client")
    from fre_runtime.live.line import Line

    metrics = Metrics(0)
    try:
        out = Outlet(metrics, "metrics")
        line = Line("top", score_by_brightness, Script([]), [])
        line.counters = Counters(captured=9, scored=5, dropped=3, failed=1, anomalous=2)
        metrics.watch([line], [out])
        out.emit(event(0))
        out.emit(drifting(1, line="side"))
        out.emit(dataclasses.replace(stale(), drift=DriftState(False, None, 0.1, 0.5, 9)))
        wait_for(lambda: out.delivered == 3)
        told = scrape(metrics)
        for expected in (
            'fre_frames_captured_total{line="top"} 9.0',
            'fre_frames_scored_total{line="top"} 5.0',
            'fre_frames_anomalous_total{line="top"} 2.0',
            'fre_frames_dropped_total{line="top"} 3.0',
            'fre_frames_failed_total{line="top"} 1.0',
            'fre_reconnects_total{line="top"} 0.0',
            'fre_events_lost_total{sink="metrics"} 0.0',
            'fre_latency_seconds_sum{line="top"} 0.0125',
            'fre_score_count{line="top"} 1.0',
            'fre_state{line="top",state="anomalous"} 0.0',
            'fre_state{line="top",state="stale"} 1.0',
            'fre_drift{line="top"} 0.0',
            'fre_drift{line="side"} 1.0',
            'fre_last_score_timestamp_seconds{line="top"} 1.7000000005e+09',
        ):
            assert expected in told, expected
    finally:
        out.close()
    with pytest.raises(OSError, match="refused"):
        scrape(metrics)


def test_metrics_on_a_port_in_use():
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=f"127.0.0.1:{port}: metrics cannot be served"):
            Metrics(port)
