import shutil
import subprocess
import threading
import time

import pytest

from fre_runtime.commands import run
from fre_runtime.commands.common import run_command
from fre_runtime.live.window import open_window
from tests.live.conftest import picture
from tests.live.sink_events import event, stale


def test_without_a_display_it_is_refused(uint8_model, monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert run_command(run, [str(uint8_model.path), "camera:0", "--view"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --view needs")
    assert "fre-serve" in line


@pytest.fixture
def display(monkeypatch):
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb")
    pytest.importorskip("tkinter")
    with subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        monkeypatch.setenv("DISPLAY", f":{server.stdout.readline().strip()}")
        yield
        server.terminate()


def test_a_window_shows_the_newest_picture_of_each_line(display):
    window, stop = open_window("test"), threading.Event()
    window.emit(event(0))
    window.emit(event(1, value=10))
    window.emit(event(2, line="side", image=picture(1, 3000, 4000), result=None))
    window.emit(stale(3))
    window.update(stop)
    labels = window._labels
    assert list(labels) == ["top", "side"]
    assert labels["side"].image.width() <= 600  # both fit on the screen
    time.sleep(0.01)
    assert not stop.is_set()
    window._close()
    window.update(stop)
    assert stop.is_set()
    window._root.destroy()
