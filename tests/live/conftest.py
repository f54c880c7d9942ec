"""What the tests of live lines share: recording sinks, scripted sources, a camera on loopback."""

import resource
import signal
import socket
import threading
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from fre_runtime.calibration import Calibration
from fre_runtime.conformal import calibrate
from fre_runtime.image import encode_image
from fre_runtime.live.events import Event
from fre_runtime.result import Result, state_of
from fre_runtime.sources import Frame


class Recorder:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True

    def states(self) -> list[str]:
        return [event.state for event in self.events]

    def wait(self, enough: Callable[[list[Event]], bool], timeout: float = 20.0) -> None:
        """Wait for events; the limit is only there so that a broken test ends."""
        end = time.monotonic() + timeout
        while not enough(self.events):
            assert time.monotonic() < end, [(e.state, e.error) for e in self.events]
            time.sleep(0.01)


class Script:
    """A source that plays one list of pictures after the other, each time that it is opened.

    In a list stand images, errors to raise, and functions to call; a function's image is shown.
    """

    name = "script"

    def __init__(self, *plays: list, endless: bool = True, patient: bool = False) -> None:
        self._plays = list(plays)
        self.endless, self.patient = endless, patient
        self.opened = 0

    def frames(self):
        play = self._plays[min(self.opened, len(self._plays) - 1)]
        self.opened += 1
        for number, step in enumerate(play):
            if isinstance(step, Exception):
                raise step
            image = step() if callable(step) else step
            if isinstance(image, np.ndarray):
                yield Frame(self.name, number, image)


def score_by_brightness(image: np.ndarray) -> Result:
    """A model in miniature: the brighter the first pixel, the worse."""
    score = float(image[0, 0, 0]) / 255
    native_map = np.full((4, 4), score, np.float32)
    return Result(score, score, state_of(score), image.shape[:2], native_map)


def picture(value: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that `score_by_brightness` scores as value / 255."""
    return np.full((height, width, 3), value, np.uint8)


def rising_scores() -> tuple[Calibration, list[np.ndarray], list[np.ndarray]]:
    """A calibration, and pictures as `score_by_brightness` saw them then, and brighter ones."""
    values = np.random.default_rng(0).integers(40, 80, 700)
    scores = values[:100] / 255
    calibration = calibrate(scores, scores, np.arange(100), 0.02, 5, "these")
    return (
        calibration,
        [picture(value) for value in values[100:400]],
        [picture(value + 25) for value in values[400:]],
    )


@pytest.fixture
def stop():
    """Set at the end of the test, so that nothing it started goes on."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def recorder():
    return Recorder()


def jpeg(value: int, height: int = 48, width: int = 64) -> bytes:
    return encode_image(picture(value, height, width), ".jpg")


def part(data: bytes, announced: bool = True) -> bytes:
    """One picture of an MJPEG stream."""
    length = b"Content-Length: %d\r\n" % len(data) if announced else b""
    return b"--frame\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n" + data + b"\r\n"


HEAD = (
    b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n"
    b"Connection: close\r\n\r\n"
)


class LoopbackServer:
    """A TCP server on loopback; each connection is handled by ``serve(connection, number)``."""

    def __init__(self, serve: Callable[[socket.socket, int], None], port: int = 0) -> None:
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self.requests: list[bytes] = []
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            arguments = (connection, self.connections - 1)
            threading.Thread(target=self._handle, args=arguments, daemon=True).start()

    def _handle(self, connection: socket.socket, number: int) -> None:
        with connection:
            try:
                self._serve(connection, number)
            except OSError:  # the client has gone
                return

    def sleep(self, seconds: float) -> None:
        """Keep silent, but not beyond the end of the test."""
        self._over.wait(seconds)

    def close(self) -> None:
        if not self._over.is_set():
            self._over.set()
            self._socket.shutdown(socket.SHUT_RDWR)  # accept is left, too
            self._socket.close()


@pytest.fixture
def serve():
    """``serve(function, port)`` starts a `LoopbackServer`."""
    servers = []

    def start(function, port=0):
        servers.append(LoopbackServer(function, port))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def camera(serve):
    """``camera(play)`` is an MJPEG camera: ``play(send, number)`` sends bytes after the head."""

    def start(play):
        def handle(connection, number):
            server.requests.append(connection.recv(4096))
            connection.sendall(HEAD)
            play(connection.sendall, number)

        server = serve(handle)
        return server

    return start


def write_video(path, frames: int = 10, rate: float = 25, size: tuple[int, int] = (64, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, size)
    for i in range(frames):
        writer.write(picture(40 + i % 200, size[1], size[0]))
    writer.release()
    return path


@pytest.fixture
def small_files():
    """Files of this process cannot grow beyond so many bytes: a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)
