"""The page's own endpoints, and what they do with what hostile people send."""

import asyncio
import base64
import json
import os
import struct
import zlib

import numpy as np
import pytest

from fre_runtime import Detector, read_image
from fre_runtime.calibration import Histogram
from fre_runtime.serve.app import make_app
from fre_runtime.serve.guard import Access
from fre_runtime.serve.limits import Limits
from fre_runtime.serve.service import STOPS, Service
from tests.live.sink_events import stale


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_a_photo_is_scored_as_the_detector_scores_it(client, detector, png):
    answer = client.post("/api/score", content=png).json()
    result = detector(png)
    assert answer["score"] == result.score
    assert answer["raw_score"] == result.raw_score
    assert answer["state"] == result.state
    assert (answer["width"], answer["height"]) == (96, 80)
    assert answer["boxes"] == [box._asdict() for box in result.boxes]
    assert "picture" not in answer


def test_the_page_gets_a_picture_with_the_answer(client, png):
    answer = client.post("/api/score?picture=1", content=png).json()
    kind, _, data = answer["picture"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert read_image(base64.b64decode(data)).shape == (800, 960, 3)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is empty"),
        (b"<svg onload='alert(1)'/>", "is not a JPEG"),
        (b"<html><script>alert(1)</script>", "is not a JPEG"),
        (b"#!/bin/sh\nrm -rf /", "is not a JPEG"),
        (bomb(50_000), "over the limit of 64000000"),
        (bomb(100), "truncated"),
        (b"\x89PNG\r\n\x1a\n", "is not a JPEG"),
    ],
)
def test_what_is_no_photo_is_refused_and_not_repeated(client, body, reason):
    response = client.post("/api/score", content=body)
    assert response.status_code == 400
    assert reason in response.json()["error"]
    assert "alert" not in response.text
    assert response.headers["content-type"] == "application/json"


def test_a_body_over_the_limit_is_refused_from_its_header(client):
    response = client.post("/api/score", content=b"x" * ((1 << 20) + 1))
    assert response.status_code == 413
    assert "1048576 bytes" in response.json()["error"]


def test_the_limit_of_pixels_is_that_of_the_detector(client_for, uint8_model, png):
    strict = Detector(uint8_model, max_pixels=80 * 96 - 1)
    response = client_for(detector=strict).post("/api/score", content=png)
    assert response.status_code == 400
    assert "over the limit of 7679" in response.json()["error"]


def run_asgi(app, messages, headers=()):
    """Send ``messages`` to POST /api/score by hand; returns status, JSON and how many were read."""
    read, sent = [], []

    async def receive():
        await asyncio.sleep(0)
        message = messages[len(read)] if len(read) < len(messages) else await asyncio.Future()
        read.append(message)
        return message

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/api/score", "raw_path": b"/api/score",
        "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
        "server": ("127.0.0.1", 80), "headers": [(b"host", b"127.0.0.1"), *headers],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"]), len(read)


@pytest.fixture
def app_for(detector, tmp_path):
    return lambda **limits: make_app(
        Service(detector, tmp_path), Access(None), Limits(1 << 20, **limits)
    )


def test_two_gigabytes_without_a_length_are_cut_off_at_the_limit(app_for):
    chunk = {"type": "http.request", "body": bytes(1 << 18), "more_body": True}
    status, answer, read = run_asgi(app_for(), [chunk] * 8192)
    assert (status, read) == (413, 5)
    assert "over the limit" in answer["error"]


def test_two_gigabytes_with_a_length_are_not_read_at_all(app_for):
    chunk = {"type": "http.request", "body": bytes(1 << 18), "more_body": True}
    status, _, read = run_asgi(app_for(), [chunk], [(b"content-length", b"2147483648")])
    assert (status, read) == (413, 0)


def test_a_body_that_trickles_in_is_given_up(app_for):
    chunk = {"type": "http.request", "body": b"x", "more_body": True}
    status, answer, _ = run_asgi(app_for(seconds=0.05), [chunk])
    assert status == 408
    assert "0.05 s" in answer["error"]


def test_a_body_that_breaks_off_is_no_fault_of_ours(app_for):
    chunk = {"type": "http.request", "body": b"x", "more_body": True}
    # Raised through the application, it would be a traceback on the terminal.
    status, answer, _ = run_asgi(app_for(), [chunk, {"type": "http.disconnect"}])
    assert (status, answer) == (400, {"error": "the body broke off"})


def test_a_compressed_body_is_refused_unread(app_for):
    chunk = {"type": "http.request", "body": b"x", "more_body": True}
    status, _, read = run_asgi(app_for(), [chunk], [(b"content-encoding", b"gzip")])
    assert (status, read) == (415, 0)


def test_too_many_at_once_are_told_to_come_back(detector, tmp_path, png):
    limits = Limits(1 << 20, at_once=2)
    app = make_app(Service(detector, tmp_path), Access(None), limits)

    async def crowd():
        from httpx2 import ASGITransport, AsyncClient

        async with AsyncClient(transport=ASGITransport(app), base_url="http://127.0.0.1") as client:
            answers = await asyncio.gather(
                *(client.post("/api/score", content=png) for _ in range(8))
            )
            later = await client.post("/api/score", content=png)
        return answers, later

    answers, later = asyncio.run(crowd())
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] * 2 + [503] * 6
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert later.status_code == 200


def test_the_model_is_described_with_what_each_threshold_means(client, detector, uint8_model):
    about = client.get("/api/model").json()
    calibration = uint8_model.card.variants["fp32"].calibration
    assert about["name"] == uint8_model.card.name
    assert about["engine"] == detector.info.engine
    assert about["source"] is None
    assert about["max_upload"] == 1 << 20
    assert about["threshold"]["raw"] == calibration.image.value
    assert about["threshold"]["scenes"] == 24
    stops = np.array(about["threshold"]["stops"])
    np.testing.assert_allclose(stops[:, 0], STOPS)
    np.testing.assert_allclose(stops[:, 1], calibration.image.raw(STOPS))
    assert (np.diff(stops[:, 2]) <= 0).all()
    assert (stops[0, 2], stops[-1, 2]) == (1, 0)
    assert about["calibrate"] == "fre-calibrate model GOOD_PHOTOS --out NEW"


def test_share_above_counts_within_the_bins():
    histogram = Histogram(1.0, 16.0, [2, 0, 1, 1])  # edges 1, 2, 4, 8, 16
    raw = np.array([0.0, 0.5, 1, np.sqrt(2), 2, 4, 8, 16, 99])
    expected = [1, 1, 1, 0.75, 0.5, 0.5, 0.25, 0, 0]
    np.testing.assert_allclose(histogram.share_above(raw), expected, atol=1e-12)


def test_a_drift_alarm_is_in_the_state(client_for, drifted):
    state = client_for(watched=drifted).get("/api/state").json()
    assert state["alarm"]["direction"] == "higher"
    assert state["alarm"]["time"] == drifted.line.alarm.time
    assert state["alarm"]["scores"] < 40
    assert state["last"]["drift"]["drifting"]


def test_a_drift_alarm_can_be_reset_by_those_who_may(client_for, drifted):
    stranger = client_for(Access("0123456789abcdef"), watched=drifted)
    assert stranger.post("/api/drift/reset").status_code == 401
    client = client_for(watched=drifted)
    elsewhere = {"origin": "http://elsewhere.example"}
    assert client.post("/api/drift/reset", headers=elsewhere).status_code == 403
    assert client.get("/api/drift/reset").status_code == 405
    assert client.get("/api/state").json()["alarm"]
    assert client.post("/api/drift/reset").status_code == 200
    assert client.get("/api/state").json()["alarm"] is None
    assert drifted.line.drift.scores == 0
    assert client_for().post("/api/drift/reset").status_code == 200  # no line, nothing to do


def test_names_that_are_no_unicode_are_told_all_the_same(client_for, drifted):
    name = os.fsdecode(b"\xff.png")
    drifted.board.emit(stale(error=f"{name}: damaged"))
    state = client_for(watched=drifted).get("/api/state")
    assert state.status_code == 200
    assert state.json()["last"]["error"] == f"{name}: damaged"


def test_without_a_line_there_is_no_picture(client):
    assert client.get("/api/state").json() == {"line": "none"}
    for path in ("/api/live.jpg", "/api/anomalies/1.jpg", "/api/anomalies/x.jpg"):
        response = client.get(path)
        assert response.status_code == 404
        assert response.json() == {"error": "there is no such picture"}


@pytest.mark.parametrize("since", ["-1", "x", "9" * 400, "٣", ""])
def test_a_nonsensical_count_counts_as_none(client, since):
    assert client.get("/api/state", params={"since": since}).status_code == 200


def test_wrong_addresses_and_methods_answer_in_json(client):
    assert client.get("/nothing").json() == {"error": "Not Found"}
    assert client.get("/api/score").status_code == 405
    assert client.delete("/api/model").json() == {"error": "Method Not Allowed"}


def test_a_fault_of_ours_tells_nothing_of_its_inside(client, monkeypatch, png):
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(Service, "try_photo", broken)
    client = type(client)(client.app, base_url=str(client.base_url), raise_server_exceptions=False)
    response = client.post("/api/score", content=png)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "content-security-policy" in response.headers
