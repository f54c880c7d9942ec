"""Events appended to a file, or on stdout."""

import json
import os
import threading

import pytest

from fre_runtime.errors import OutputError
from fre_runtime.live.sinks.json_lines import JsonLines, StdoutLines
from tests.live.sink_events import event


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
