"""fre-run on live sources, as a user types it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from fre_runtime.commands import run
from fre_runtime.commands.common import run_command
from fre_runtime.image import encode_image
from tests.live.conftest import part, write_video

COMMAND = [sys.executable, "-c", "from fre_runtime.commands.launch import run; run()"]


def call(*argv):
    return run_command(run, [str(arg) for arg in argv])


@pytest.fixture
def parts(make_photo):
    """A camera that shows good parts, one after the other."""

    def play(send, number):
        for seed in range(1000):
            send(part(encode_image(make_photo(seed % 7), ".jpg")))
            time.sleep(0.005)

    return play


def test_a_stream_until_the_time_is_over(uint8_model, camera, parts, tmp_path, capsys):
    address = f"http://127.0.0.1:{camera(parts).port}/video"
    lines = tmp_path / "events.jsonl"
    argv = ["--duration", 1.5, "--json", lines, "--save", tmp_path / "bad", "--video",
            tmp_path / "video", "--metrics", 0]  # fmt: skip
    assert call(uint8_model.path, address, *argv) == 0
    printed = capsys.readouterr().out.splitlines()
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert told
    assert all((event["state"] in ("good", "anomalous")) == (event["score"] is not None)
               for event in told)  # fmt: skip
    assert printed[0].split()[1] == told[0]["state"]
    summary = next(line for line in printed if "captured" in line)
    captured, scored, _, dropped, failed = (
        int(word) for word in summary.replace("(", "").split() if word.isdigit()
    )
    assert captured == scored + dropped + failed
    assert scored == len(told) > 0
    assert f"JSON lines in {lines}: {scored} delivered" in printed
    assert f"video in {tmp_path / 'video'}: {scored} delivered" in printed


def test_a_video_file_as_if_it_were_a_camera(uint8_model, tmp_path, capsys):
    video = write_video(tmp_path / "line.avi", frames=12, rate=100)
    assert call(uint8_model.path, video, "--live", "--json", "-") == 0
    out = capsys.readouterr()
    told = [json.loads(line) for line in out.out.splitlines()]
    assert told[-1]["number"] == 11
    assert "12 captured" in out.err


def test_a_folder_that_fills_up(uint8_model, tmp_path, make_folder, capsys):
    folder = make_folder(tmp_path / "photos", 3)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert call(uint8_model.path, folder, "--watch", "--duration", 2) == 0
    out = capsys.readouterr().out
    assert all(f"photo_00{i}.png" in out for i in range(3))
    assert "3 captured = 3 scored" in out


def test_several_lines_from_a_file(uint8_model, float_model, camera, parts, tmp_path, capsys):
    server = camera(parts)
    config = {
        "engine": "onnxruntime",
        "lines": [
            {"name": name, "model": str(model.path), "source": f"http://127.0.0.1:{server.port}/"}
            for name, model in (("a", uint8_model), ("b", float_model), ("c", uint8_model))
        ],
        "sinks": {"json": {"file": "events.jsonl"}},
    }
    path = tmp_path / "line.json"
    path.write_text(json.dumps(config))
    assert call("--config", path, "--duration", 2, "--quiet") == 0
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {event["line"] for event in told if event["score"] is not None} == {"a", "b", "c"}
    assert [line[:2] for line in capsys.readouterr().out.splitlines()] == ["a:", "b:", "c:", "JS"]


def test_a_camera_that_never_answers(uint8_model, capsys):
    assert call(uint8_model.path, "http://127.0.0.1:9/", "--duration", 1) == 1
    out = capsys.readouterr()
    assert "0 captured = 0 scored" in out.out
    assert "not one picture was scored" in out.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_with_the_summary(number, uint8_model, camera, parts):
    address = f"http://127.0.0.1:{camera(parts).port}/video"
    command = [*COMMAND, str(uint8_model.path), address]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()  # the first picture was scored
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    assert "captured = " in out.splitlines()[-1]


def test_ctrl_c_among_photos_tells_what_was_done(uint8_model, tmp_path, make_folder):
    folder = make_folder(tmp_path / "photos", 2)
    video = write_video(tmp_path / "line.avi", frames=1000, size=(320, 240))
    command = [*COMMAND, str(uint8_model.path), str(folder / "photo_000.png"), str(video)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A test run in the background ignores Ctrl-C, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "stopped\n"
    assert out.splitlines()[-1].endswith(" invalid")


def test_quiet(uint8_model, tmp_path, make_folder, capsys):
    assert call(uint8_model.path, make_folder(tmp_path / "photos", 3), "--quiet") == 0
    out, err = capsys.readouterr()
    assert [word.strip(",") for word in out.split()][1::2] == ["good", "anomalous", "invalid"]
    assert err == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["photo.png", "--webhook", "http://x"], "--webhook is for live sources"),
        (["photo.png", "--quota-mib", "3"], "--quota-mib is for live sources"),
        (["camera:0", "photo.png"], "photo.png: is no live source like camera:0"),
        (["camera:x"], "a camera has a number"),
        (["photo.png", "--live"], "is no live source"),
        (["photo.png", "--watch"], "is no folder"),
        (["photo.png", "--only-new"], "--only-new is for live sources"),
        (["camera:0", "--config", "line.toml"], "MODEL does not go with --config"),
        (["camera:0", "--metrics", "x"], "expected PORT or HOST:PORT"),
        (["camera:0", "--mqtt", "broker"], "expected mqtt://HOST"),
    ],
)
def test_misuse(argv, message, uint8_model, tmp_path, make_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path, 1).joinpath("photo_000.png").rename("photo.png")
    assert call(uint8_model.path, *argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (["--threads", "1"], "--threads"),
        (["--engine", "openvino"], "--engine"),
        (["--variant", "bf16"], "--variant"),
        (["--max-pixels", "9"], "--max-pixels"),
        (["--watch"], "--watch"),
        (["--quota-mib", "3"], "--quota-mib"),
    ],
)
def test_what_a_file_says_is_not_passed_over_on_the_command_line(argv, option, capsys):
    assert call("--config", "line.toml", *argv) == 2
    assert f"{option} does not go with --config; say it in line.toml" in capsys.readouterr().err


def test_a_limit_of_pixels_holds_for_a_stream(uint8_model, camera, parts, capsys):
    address = f"http://127.0.0.1:{camera(parts).port}/video"  # of 80 x 96 pixels
    assert call(uint8_model.path, address, "--max-pixels", 7679, "--duration", 0.5) == 1
    assert "over the limit of 7679" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["model"]])
def test_model_and_source_are_needed(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        call(*argv)
    assert stop.value.code == 2
    assert "give MODEL and at least one SOURCE, or --config FILE" in capsys.readouterr().err
