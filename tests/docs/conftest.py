"""What the pages take for granted: a reader's folder with photos, a data set and a model."""

import dataclasses
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fre_edge import zoo
from fre_export import export
from fre_runtime.image import encode_image
from tests.conftest import bad_photo, good_photo

SIZE = 1152, 640
"""Width and height of a reader's photos: just large enough for the regions that pages name."""


def make_photos(folder: Path | str, count: int, first_seed: int = 0, bad: bool = False) -> Path:
    """Write photos as a camera gives them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first_seed, first_seed + count):
        photo = cv2.resize(bad_photo(seed) if bad else good_photo(seed), SIZE)
        (folder / f"part{seed:04d}.jpg").write_bytes(encode_image(photo, ".jpg"))
    return folder


@pytest.fixture(scope="session")
def quick_default():
    """The default backbone ends after its second stage, and sees 64 pixels: seconds an export."""
    name = "efficientnet_lite0"
    small = dataclasses.replace(zoo.SPECS[name], layers=("blocks.1",), size=64, overlap=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.SPECS, name, small)
        yield


@pytest.fixture(scope="session")
def reader(quick_default, tmp_path_factory) -> Path:
    """The folder in which every page begins."""
    root = tmp_path_factory.mktemp("reader")
    make_photos(root / "photos", 20)
    make_photos(root / "new_photos", 6, 100)
    make_photos(root / "new_photos", 2, 200, bad=True)
    make_photos(root / "dataset/train/good", 12)
    make_photos(root / "dataset/test/good", 4, 100)
    make_photos(root / "dataset/test/scratch", 4, 200, bad=True)
    shutil.copy(root / "photos/part0000.jpg", root / "photo.jpg")
    export(root / "photos", root / "model")
    return root


@pytest.fixture
def folder(reader, tmp_path, monkeypatch) -> Path:
    """A copy of the reader's folder, which is the current one."""
    copy = Path(shutil.copytree(reader, tmp_path / "reader"))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def make_video() -> Callable[[str], None]:
    """``make_video(path)`` films ten parts."""

    def make(path: str) -> None:
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, SIZE)
        for seed in range(300, 310):
            writer.write(np.ascontiguousarray(cv2.resize(good_photo(seed), SIZE)[..., ::-1]))
        writer.release()

    return make


@pytest.fixture
def port() -> int:
    """A port of this machine that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def serve(port: int) -> Iterator[Callable[[str], None]]:
    """``serve(model)`` runs fre-serve at `port` until the page is done."""
    servers = []

    def start(model: str) -> None:
        script = "from fre_runtime.commands.launch import serve; serve()"
        command = [sys.executable, "-c", script, model, "--port", str(port)]
        servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        end = time.monotonic() + 60
        while not _listens(port):
            assert time.monotonic() < end, "fre-serve did not start"
            assert servers[-1].poll() is None, "fre-serve ended"
            time.sleep(0.05)

    yield start
    for server in servers:
        server.terminate()
        server.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
