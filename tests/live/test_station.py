import json
import threading
import traceback
from pathlib import Path

import numpy as np
import pytest

from fre_runtime.errors import ArtifactError, DataError, UsageError
from fre_runtime.live import models
from fre_runtime.live.models import ModelPool
from fre_runtime.live.opening import open_station
from fre_runtime.live.station import (
    ImagesConfig,
    LineConfig,
    MqttConfig,
    SinksConfig,
    Station,
    read_station,
)
from fre_runtime.threads import default_threads

TOML = """
threads = 1

[[lines]]
name = "top"
model = "models/top"
source = "rtsp://user:secret@10.0.0.7/stream"
limits = { no_frame = 3, frozen = 0, drift = 1 }

[[lines]]
model = "models/side"
source = "photos"
watch = true
variant = "bf16"

[sinks]
json = { file = "events.jsonl" }
images = { folder = "bad", quota_mib = 10, states = ["anomalous", "invalid"] }
webhook = { address = "http://10.0.0.9/x", headers = { Authorization = "Bearer x" } }
mqtt = { address = "mqtt://10.0.0.9/plant" }
metrics = { port = 9100 }
"""


def test_a_station_from_a_file(tmp_path):
    path = tmp_path / "line.toml"
    path.write_text(TOML)
    station = read_station(path)
    top, side = station.lines
    assert (top.name, top.source) == ("top", "rtsp://user:secret@10.0.0.7/stream")
    assert (top.limits.no_frame, top.limits.frozen, top.limits.queue) == (3, 0, 1)
    assert (top.limits.drift, side.limits.drift) == (1, None)
    assert Path(top.model) == tmp_path / "models/top"  # paths are relative to the file
    assert (side.name, Path(side.source)) == ("photos", tmp_path / "photos")
    assert (side.watch, side.variant) == (True, "bf16")
    assert station.threads == 1
    assert station.sinks.images.quota_mib == 10
    assert Path(station.sinks.json.file) == tmp_path / "events.jsonl"
    other = tmp_path / "line.json"
    other.write_text(json.dumps({"lines": [{"model": "m", "source": "camera:0"}]}))
    assert read_station(other).lines[0].source == "camera:0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lines = []", "has no line"),
        ("x = 1", r"missing or unknown fields \['lines', 'x'\]; known are lines"),
        ('[[lines]]\nmodel = "m"', r"lines\[0\]: missing or unknown fields \['source'\]"),
        ('[[lines]]\nmodel = "m"\nsource = 3', "source: expected str, got 3"),
        ('[[lines]]\nmodel = "m"\nsource = "s"\nlimits = { no_frame = -1 }', "no_frame must be"),
        ("[[lines", "is not valid TOML"),
        ("\x00", "is not valid TOML"),
    ],
)
def test_files_that_describe_no_station(text, message, tmp_path):
    path = tmp_path / "line.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_station(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UsageError, match=r"must end in .toml or .json"):
        read_station(tmp_path / "line.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        read_station(tmp_path / "line.toml")


def lines(model, *sources, **changes):
    return [LineConfig(str(model), source, **changes) for source in sources]


def test_what_cannot_run_is_refused_before_anything_starts(uint8_model, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    video = tmp_path / "recordings" / "line.mkv"
    video.parent.mkdir()
    video.touch()
    model, stop = uint8_model.path, threading.Event()

    def named(*names):
        return [LineConfig(str(model), f"camera:{i}", name) for i, name in enumerate(names)]

    for station, error, message in (
        (Station(lines(tmp_path / "none", "camera:0")), ArtifactError, "does not exist"),
        (Station(lines(model, "camera:0", variant="int7")), UsageError, "no variant 'int7'"),
        (Station(lines(model, "camera:0", "camera:0")), UsageError, "two lines are called"),
        (Station(lines(model, "nothing")), UsageError, "no live source"),
        (Station(lines(model, "camera:0"), engine="abacus"), UsageError, "'abacus' does not"),
        (Station(lines(model, "camera:0"), threads=10**6), UsageError, "threads must lie"),
        (
            Station(
                lines(model, str(photos), watch=True),
                SinksConfig(images=ImagesConfig(str(photos / "bad"))),
            ),
            UsageError,
            "would be scored again",
        ),
        (
            Station(lines(model, str(video)), SinksConfig(images=ImagesConfig(str(video.parent)))),
            UsageError,
            "under a quota the oldest files",
        ),
        (
            Station(named("camera 1", "camera/1"), SinksConfig(mqtt=MqttConfig("mqtt://h"))),
            UsageError,
            "line 'camera/1' and line 'camera 1' would both be 'camera-1' in topics",
        ),
        (
            Station(named("-", "/"), SinksConfig(images=ImagesConfig(str(tmp_path / "bad")))),
            UsageError,
            "line '/' and line '-' would both be 'line'",
        ),
        (
            Station(named("top", "status"), SinksConfig(mqtt=MqttConfig("mqtt://h"))),
            UsageError,
            "line 'status' and the broker's clients would both be 'status'",
        ),
        (
            Station(
                lines(model, "camera:0"),
                SinksConfig(images=ImagesConfig(str(tmp_path / "bad"), states=["ugly"])),
            ),
            UsageError,
            "choose from anomalous, good",
        ),
    ):
        with pytest.raises(error, match=message), open_station(station, stop):
            pass


def test_models_are_shared_kept_and_bounded(uint8_model, float_model, max_model, make_photo):
    pool = ModelPool(models=2, engine="onnxruntime", capacity=2)
    assert pool.threads == max(1, default_threads() // 2)  # together no more than the box has
    first = pool.detector(uint8_model.path)
    assert first.info.threads == pool.threads
    assert pool.detector(uint8_model.path / ".." / uint8_model.path.name) is first
    second = pool.detector(float_model.path)
    assert pool.detector(uint8_model.path) is first  # a warm switch loads nothing
    pool.detector(max_model.path)  # the one not used for longest has to go
    assert pool.detector(uint8_model.path) is first
    assert pool.detector(float_model.path) is not second
    assert pool.scorer(uint8_model.path)(make_photo(1)).state in ("good", "anomalous")


def test_asking_for_a_damaged_model_keeps_no_picture(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise ArtifactError("damaged")

    monkeypatch.setattr(models, "Detector", refuse)
    score = ModelPool().scorer(tmp_path)
    for _ in range(20):
        with pytest.raises(ArtifactError) as caught:
            score(np.zeros((4, 4, 3), np.uint8))
    assert len(traceback.extract_tb(caught.value.__traceback__)) < 6


def test_a_model_is_loaded_once_however_many_ask(uint8_model, monkeypatch):
    loads = []
    loading = threading.Event()

    def slow(*args, **kwargs):
        loads.append(args)
        loading.wait(0.3)
        return "detector"

    monkeypatch.setattr(models, "Detector", slow)
    pool, got = ModelPool(), []
    asking = [
        threading.Thread(target=lambda: got.append(pool.detector(uint8_model.path)))
        for _ in range(4)
    ]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(20)
    assert got == ["detector"] * 4
    assert len(loads) == 1


def test_a_model_that_cannot_be_loaded_is_not_tried_for_every_picture(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(models.time, "monotonic", lambda: now[0])
    tries = []

    def refuse(*args, **kwargs):
        tries.append(args)
        raise ArtifactError("damaged")

    monkeypatch.setattr(models, "Detector", refuse)
    pool = ModelPool()
    for _ in range(5):
        with pytest.raises(ArtifactError, match="damaged"):
            pool.detector(tmp_path)
    assert len(tries) == 1
    now[0] += models.RETRY_SECONDS + 1
    with pytest.raises(ArtifactError, match="damaged"):
        pool.detector(tmp_path)
    assert len(tries) == 2
