"""A line on a real HTTP stream, which is cut, frozen, slowed, resized and damaged on purpose."""

import threading

import numpy as np
import pytest

from fre_runtime.errors import CaptureError
from fre_runtime.live import ffmpeg, http_stream
from fre_runtime.live.backoff import Backoff
from fre_runtime.live.captures import open_capture
from fre_runtime.live.line import Line
from fre_runtime.live.options import LineOptions
from tests.live.conftest import jpeg, part, score_by_brightness, write_video


@pytest.fixture
def watch(recorder, stop):
    """``watch(server, **limits)`` runs a line on it until the test ends."""
    started = []

    def start(server, path="/video.mjpg", login="", **limits):
        capture = open_capture(f"http://{login}127.0.0.1:{server.port}{path}")
        options = LineOptions(queue=50, **limits)
        backoff = Backoff(first=0.01, cap=0.02)
        line = Line("line", score_by_brightness, capture, [recorder], options, backoff)
        thread = threading.Thread(target=line.run, args=(stop,), daemon=True)
        thread.start()
        started.append((line, thread))
        return line

    yield start
    stop.set()
    for line, thread in started:
        thread.join(20)
        assert not thread.is_alive()
        assert line.counters.waiting == 0


def scored(events):
    return [round(event.score * 255) for event in events if event.score is not None]


def test_a_stream_that_is_cut_in_mid_frame_is_opened_again(camera, watch, recorder):
    def play(send, number):
        for value in (10, 20):
            send(part(jpeg(value + number)))
        send(part(jpeg(200))[:300])  # half a picture

    server = camera(play)
    line = watch(server)
    recorder.wait(lambda events: len(scored(events)) >= 6)
    assert scored(recorder.events)[:6] == [10, 20, 11, 21, 12, 22]  # never the half picture
    cut = next(event for event in recorder.events if event.state == "stale")
    assert "broke off after 2 frames (the server closed the connection)" in cut.error
    assert line.reconnects >= 2
    assert server.connections >= 3


@pytest.mark.parametrize("announced", [True, False])
def test_a_damaged_picture_is_invalid_and_the_next_is_scored(announced, camera, watch, recorder):
    whole = jpeg(30)

    def play(send, number):
        for data in (whole, whole[: len(whole) // 2], b"no picture", whole):
            send(part(data, announced))
        server.sleep(20)

    server = camera(play)
    watch(server)
    recorder.wait(lambda events: len(events) >= (4 if announced else 3))
    if not announced:  # the end of a picture shows with the next one's beginning
        assert recorder.states()[:3] == ["good", "invalid", "invalid"]
        return
    assert recorder.states()[:4] == ["good", "invalid", "invalid", "good"]
    assert "truncated" in recorder.events[1].error


def test_a_frozen_stream_is_stale(camera, watch, recorder):
    def play(send, number):
        send(part(jpeg(10)))
        while True:
            send(part(jpeg(20)))
            server.sleep(0.02)

    server = camera(play)
    watch(server, frozen=0.3)
    recorder.wait(lambda events: any(event.state == "stale" for event in events))
    stale = next(event for event in recorder.events if event.state == "stale")
    assert "the very same picture" in stale.error


@pytest.mark.parametrize("drip", [b"", b"-"])
def test_a_stream_that_slows_down_to_nothing_is_stale(drip, camera, watch, recorder, monkeypatch):
    monkeypatch.setattr(http_stream, "READ_SECONDS", 0.2)

    def play(send, number):
        send(part(jpeg(10 + number)))
        for _ in range(200):
            server.sleep(0.1)
            if drip:  # a byte now and then keeps the connection alive, but is no picture
                send(drip)

    server = camera(play)
    watch(server, no_frame=0.5, opening=5)
    recorder.wait(lambda events: scored(events)[:2] == [10, 11])
    assert recorder.events[1].state == "stale"


@pytest.mark.parametrize("early", [True, False])
def test_a_slow_camera_is_waited_for_as_long_as_its_line_waits(early, camera, monkeypatch):
    """Whether the line between two pictures comes with the one before it or with the next."""
    monkeypatch.setattr(http_stream, "READ_SECONDS", 0.2)
    monkeypatch.setattr(http_stream, "OPEN_SECONDS", 0.2)

    def play(send, number):
        for value in (10, 20, 30):
            whole = part(jpeg(value))
            if early and value > 10:
                whole = whole.removeprefix(b"--frame\r\n")
            send(whole + (b"--frame\r\n" if early else b""))
            server.sleep(0.6)

    server = camera(play)
    stream = http_stream.HttpStream(f"http://127.0.0.1:{server.port}/", silence=5)
    values = []
    with pytest.raises(CaptureError, match="broke off after 3 frames"):
        values += [round(f.decoded().image.mean()) for f in stream.frames()]
    assert server.connections == 1


def test_a_stream_that_changes_its_size(camera, watch, recorder):
    def play(send, number):
        for height, width in ((48, 64), (96, 128), (64, 48)):
            send(part(jpeg(10, height, width)))
        server.sleep(20)

    server = camera(play)
    watch(server)
    recorder.wait(lambda events: len(events) >= 3)
    assert recorder.states()[:3] == ["good", "good", "invalid"]
    assert recorder.events[1].image.shape == (96, 128, 3)  # as it came, never bent


def test_no_such_camera(serve, watch, recorder):
    server = serve(lambda connection, number: None)
    server.close()  # nobody listens there now
    watch(server)
    recorder.wait(lambda events: len(events) >= 2)
    assert set(recorder.states()) == {"stale"}
    assert "refused" in recorder.events[0].error


def test_a_server_that_never_answers(serve, watch, recorder):
    server = serve(lambda connection, number: server.sleep(30))
    watch(server, opening=0.2)
    recorder.wait(lambda events: len(events) >= 2)
    assert "no frame for 0.2 s" in recorder.events[0].error


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "404"),
        (b"HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "sends text/html"),
        (b"SSH-2.0-OpenSSH\r\n", "does not answer"),
    ],
)
def test_a_server_that_is_no_camera(answer, error, serve, watch, recorder):
    def handle(connection, number):
        connection.recv(4096)
        connection.sendall(answer)

    watch(serve(handle))
    recorder.wait(lambda events: len(events) >= 1)
    assert recorder.events[0].state == "stale"
    assert error in recorder.events[0].error


def test_the_password_is_sent_but_never_shown(serve, watch, recorder):
    requests = []

    def handle(connection, number):
        requests.append(connection.recv(4096))
        if b"Authorization: Digest" not in requests[-1]:
            connection.sendall(
                b'HTTP/1.0 401 No\r\nWWW-Authenticate: Digest realm="cam", nonce="1"\r\n\r\n'
            )
            return
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace;"
                           b"boundary=--frame\r\n\r\n" + part(jpeg(10)))  # fmt: skip

    line = watch(serve(handle), login="operator:secret@")
    recorder.wait(lambda events: scored(events)[:1] == [10])
    recorder.wait(lambda events: events[-1].state == "stale")
    assert b'username="operator"' in requests[1]
    assert all("secret" not in f"{e.source} {e.error}" for e in recorder.events)
    assert "secret" not in line.capture.name


def test_secrets_among_the_parameters_are_never_shown():
    capture = open_capture("http://u:x@cam/v?user=me&pwd=secret&channel=2&apiKey=secret#a")
    assert capture.name == "http://cam/v?user=me&pwd=***&channel=2&apiKey=***#a"


def test_video_over_http_goes_through_ffmpeg(serve, watch, recorder, tmp_path):
    data = write_video(tmp_path / "line.avi").read_bytes()

    def handle(connection, number):
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/x-msvideo\r\n"
                           b"Content-Length: %d\r\n\r\n" % len(data) + data)  # fmt: skip

    watch(serve(handle), path="/line.avi")
    recorder.wait(lambda events: "stale" in recorder.states())
    assert len(scored(recorder.events)) == 10
    assert scored(recorder.events)[0] == pytest.approx(40, abs=3)
    assert "broke off after 10 frames" in next(e.error for e in recorder.events if e.error)


@pytest.mark.parametrize(
    ("frame", "wrong"),
    [
        (np.zeros((4, 4), np.uint8), None),
        (np.zeros((4, 4, 4), np.uint8), None),
        (np.zeros((4, 4, 2), np.uint8), "uint8 of shape (4, 4, 2)"),
        (np.zeros((4, 4), np.uint16), "uint16"),
        (np.zeros((0, 4, 3), np.uint8), "limit"),
    ],
)
def test_frames_with_wrong_channels_are_invalid(frame, wrong, monkeypatch):
    class Camera:
        def __init__(self, *_):
            self.left = 1

        def set(self, *_):
            return True

        def isOpened(self):
            return True

        def read(self):
            self.left -= 1
            return self.left >= 0, frame

        def release(self):
            pass

    monkeypatch.setattr(ffmpeg.cv2, "VideoCapture", Camera)
    frames = open_capture("camera:0").frames()
    first = next(frames)
    if wrong is None:
        assert first.image.shape == (4, 4, 3)
    else:
        assert first.image is None
        assert wrong in first.error
    with pytest.raises(CaptureError, match="broke off after 1 frames"):
        next(frames)


def test_a_camera_that_does_not_exist():
    with pytest.raises(CaptureError, match="camera:99: cannot be opened"):
        next(open_capture("camera:99").frames())
