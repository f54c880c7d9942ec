"""A served tiny model: in process by Starlette's client, and on a real port."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from fre_runtime import Detector
from fre_runtime.image import encode_image
from fre_runtime.live.events import Event
from fre_runtime.live.line import Line
from fre_runtime.model_dir import ModelDir
from fre_runtime.serve.app import make_app
from fre_runtime.serve.board import Board
from fre_runtime.serve.guard import Access
from fre_runtime.serve.limits import Limits
from fre_runtime.serve.service import Service, Watched
from tests.live.conftest import Script

BASE = "http://127.0.0.1:8080"


@pytest.fixture(scope="session")
def detector(uint8_model: ModelDir) -> Detector:
    return Detector(uint8_model)


@pytest.fixture
def client_for(detector: Detector) -> Callable[..., TestClient]:
    """``client_for(access=..., limits=..., watched=..., detector=...)``."""

    def make(
        access: Access | None = None,
        limits: Limits | None = None,
        watched: Watched | None = None,
        detector: Detector = detector,
    ) -> TestClient:
        service = Service(detector, Path("model"), watched)
        app = make_app(service, access or Access(None), limits or Limits(1 << 20))
        return TestClient(app, base_url=BASE, follow_redirects=False)

    return make


@pytest.fixture
def client(client_for: Callable[..., TestClient]) -> TestClient:
    return client_for()


@pytest.fixture
def png(make_photo: Callable[[int], np.ndarray]) -> bytes:
    return encode_image(make_photo(7), ".png")


@pytest.fixture
def make_event(detector: Detector, make_photo: Callable[..., np.ndarray]) -> Callable[..., Event]:
    """``make_event(seed, state)``: an event with a picture, its state as wished."""

    def make(number: int, state: str = "good", **changes: object) -> Event:
        image = make_photo(number)
        result = detector(image)
        fields: dict[str, object] = {
            "line": "line", "source": f"photo {number}", "number": number, "time": 1e9 + number,
            "state": state, "score": result.score, "raw_score": result.raw_score,
            "latency_ms": 5.0 + number, "result": result, "image": image,
        }  # fmt: skip
        return Event(**(fields | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def drifted(
    detector: Detector,
    uint8_model: ModelDir,
    make_photo: Callable[[int], np.ndarray],
    stop: threading.Event,
) -> Watched:
    """A line that has ended, over photos that all score high."""
    capture = Script([255 - make_photo(seed) for seed in range(40)], endless=False, patient=True)
    calibration = uint8_model.card.variants["fp32"].calibration
    board, ended = Board(), threading.Event()
    line = Line("line", detector, capture, [board], calibration=calibration)
    line.run(stop)
    ended.set()
    return Watched(board, line, ended)


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()
