"""fre-serve as people start it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from fre_runtime.commands import serve
from fre_runtime.commands.common import run_command

CODE = "import sys; from fre_runtime.commands.launch import serve; serve()"


@contextlib.contextmanager
def started(*arguments: str | Path, **environment: str):
    """Start fre-serve on a free port; yields the process and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + process.stderr.read()
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def ask(address: str, token: str | None = None, data: bytes | None = None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urlopen(Request(address, data, headers), timeout=10) as response:
        return json.load(response)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_folder_is_watched_until_a_signal_ends_it(uint8_model, make_folder, tmp_path, number):
    folder = make_folder(tmp_path / "photos", 3)
    with started(uint8_model.path, folder) as (process, address):
        deadline = time.monotonic() + 30
        while (state := ask(f"{address}api/state"))["counters"]["scored"] < 3:
            assert time.monotonic() < deadline, state
            time.sleep(0.1)
        assert state["line"] == "running"
        assert [point[3] for point in state["points"]].count("invalid") == 0
        with urlopen(f"{address}api/live.jpg", timeout=10) as response:
            assert response.read(3) == b"\xff\xd8\xff"
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "3 captured = 3 scored" in out
    assert err == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_says_the_address_and_the_summary_alone(uint8_model, make_folder, tmp_path, quiet):
    folder = make_folder(tmp_path / "photos", 2)
    with started(uint8_model.path, folder, *["--quiet"] * quiet) as (process, address):
        deadline = time.monotonic() + 30
        while ask(f"{address}api/state")["counters"]["scored"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(20)
        out, err = process.stdout.read(), process.stderr.read()  # after the first line
    assert (process.returncode, err) == (0, "")
    assert ("Ctrl-C ends it" in out) == (not quiet)
    assert "2 captured = 2 scored" in out
    assert len(out.splitlines()) == (2 if quiet else 3)


def test_other_addresses_need_a_token_which_is_made_and_printed_once(uint8_model):
    with started(uint8_model.path, "--host", "0.0.0.0") as (process, address):
        host, _, token = address.partition("#token=")
        assert len(token) >= 32
        host = re.sub(r"//[^:]+:", "//127.0.0.1:", host)
        with pytest.raises(HTTPError, match="401"):
            ask(f"{host}api/model")
        assert ask(f"{host}api/model", token)["source"] is None
        process.terminate()
        out, _ = process.communicate(timeout=20)
        assert token not in out, "printed once"


def test_a_token_of_ones_own_is_not_printed(uint8_model):
    token = "of-my-own-choosing-1"
    with started(uint8_model.path, FRE_SERVE_TOKEN=token) as (process, address):
        assert "#" not in address
        with pytest.raises(HTTPError, match="401"):
            ask(f"{address}api/model")
        assert ask(f"{address}api/model", token)["name"]
        process.terminate()
        out, _ = process.communicate(timeout=20)
        assert token not in out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Exit code and the one line of stderr."""
    code = run_command(serve, [str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return code, err


def test_a_port_in_use_is_said_before_the_model_is_loaded(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, err = refused(capsys, tmp_path / "no model", "--port", port)
    assert code == 1
    assert f"127.0.0.1:{port}: cannot be served (Address already in use)" in err


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "x" * 300, "a\0b"])
def test_an_address_that_is_not_ours_is_refused(capsys, uint8_model, host):
    code, err = refused(capsys, uint8_model.path, "--host", host, "--port", "0")
    assert code == 1
    assert "cannot be served" in err


def test_bad_arguments_are_refused(capsys, uint8_model, tmp_path):
    code, err = refused(capsys, uint8_model.path, "--token", "short", "--port", "0")
    assert (code, "at least 16" in err) == (2, True)
    code, err = refused(capsys, uint8_model.path, tmp_path / "none.mp4", "--port", "0")
    assert (code, "is no live source" in err) == (2, True)
    code, err = refused(capsys, tmp_path, "--port", "0")
    assert (code, "not a model directory" in err) == (1, True)
    for port in ("-1", "65536", "x"):
        with pytest.raises(SystemExit, match="2"):
            serve.parse_args(["model", "--port", port])


def test_a_missing_extra_is_named(capsys, monkeypatch, uint8_model):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None)
    code, err = refused(capsys, uint8_model.path)
    assert code == 1
    assert "pip install 'fre-edge[serve]'" in err
