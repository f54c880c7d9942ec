import itertools
import os

import numpy as np
import pytest

from fre_runtime.errors import CaptureError, UsageError
from fre_runtime.image import encode_image
from fre_runtime.live import watch
from fre_runtime.live.captures import open_capture
from fre_runtime.live.watch import DAMAGED_SECONDS, SETTLE_SECONDS, WatchedFolder
from tests.live.conftest import jpeg, picture


class Watcher:
    """Looks at a folder by a clock of its own, one look at a time."""

    def __init__(self, folder, **options):
        self.now = 0.0
        self._folder = WatchedFolder(
            folder, clock=lambda: self.now, sleep=lambda _: None, **options
        )
        self._frames = self._folder.frames()

    def look(self, after=SETTLE_SECONDS):
        """The photos that it gives ``after`` so many seconds."""
        self.now += after
        return list(itertools.takewhile(lambda frame: frame is not None, self._frames))

    def names(self, after=SETTLE_SECONDS):
        return [os.path.basename(frame.source) for frame in self.look(after)]

    def again(self):
        self._frames = self._folder.frames()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def put(path, data=None, time=None):
    path.write_bytes(jpeg(10) if data is None else data)
    if time is not None:
        os.utime(path, ns=(time, time))


def test_each_photo_once_in_the_order_of_completion(folder):
    put(folder / "b.jpg", time=10**9)
    put(folder / "a.jpg", time=2 * 10**9)
    put(folder / "c.txt")
    put(folder / ".hidden.jpg")
    put(folder / "d.jpg.part")
    watcher = Watcher(folder)
    assert watcher.names(0) == []  # seen for the first time: may still grow
    assert watcher.names() == ["b.jpg", "a.jpg"]
    assert watcher.names() == []
    (folder / "2026").mkdir()
    put(folder / "2026" / "e.jpg")
    assert watcher.names(0) == []
    assert watcher.names() == ["e.jpg"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may list everything")
def test_a_folder_below_that_may_not_be_listed_is_no_empty_one(folder):
    (folder / "2026").mkdir(mode=0)
    with pytest.raises(CaptureError, match="2026: cannot be listed|cannot be listed"):
        Watcher(folder).look()


def test_an_error_of_the_disk_below_is_told(folder, monkeypatch):
    (folder / "2026").mkdir()
    (folder / "lost+found").mkdir()
    scandir = os.scandir

    def failing(path):
        if os.path.basename(path) in ("2026", "lost+found"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    watcher = Watcher(folder)
    with pytest.raises(CaptureError, match="cannot be listed .Permission denied"):
        watcher.look()
    (folder / "2026").rmdir()
    watcher.again()
    assert watcher.look() == []  # what belongs to the disk's own system is left alone


def test_no_photo_comes_twice_after_a_share_was_away(folder, monkeypatch):
    monkeypatch.setattr(watch, "REMEMBERED", 2)
    for number in range(5):
        put(folder / f"{number}.jpg", time=(number + 1) * 10**9)
    watcher = Watcher(folder)
    watcher.look()
    assert len(watcher.look()) == 5
    away = folder.rename(folder.parent / "away")
    folder.mkdir()  # where nothing is mounted
    assert watcher.look() == []
    assert watcher.look() == []
    folder.rmdir()
    away.rename(folder)
    assert watcher.look() == []
    assert watcher.look() == []


def test_only_complete_files(folder):
    whole = encode_image(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8), ".png")
    watcher = Watcher(folder)
    for share in (4, 3, 2):  # grows at every look
        put(folder / "a.png", whole[: len(whole) // share])
        assert watcher.names() == []
    # The writer pauses for longer than files need to settle: half a photo is no photo.
    assert watcher.names() == []
    assert watcher.names() == []
    put(folder / "a.png", whole)
    assert watcher.names(0) == []
    (frame,) = watcher.look()
    assert frame.image.shape == (64, 64, 3)


def test_a_damaged_file_is_told_once(folder):
    put(folder / "a.jpg", jpeg(1)[:200])
    put(folder / "empty.jpg", b"")
    watcher = Watcher(folder)
    assert watcher.look(0) == []
    told = watcher.look(DAMAGED_SECONDS)
    assert [frame.image for frame in told] == [None, None]
    assert any("truncated" in frame.error for frame in told)
    assert watcher.look(DAMAGED_SECONDS) == []


def test_a_limit_of_pixels(folder):
    put(folder / "a.jpg")  # 48 x 64
    for limit in (48 * 64, 48 * 64 - 1):
        watcher = Watcher(folder, max_pixels=limit)
        watcher.look(0)
        (told,) = watcher.look(DAMAGED_SECONDS)
        assert (told.image is None) == (limit < 48 * 64)
    assert "over the limit of 3071" in told.error


def test_an_overwritten_file_is_a_new_photo(folder):
    put(folder / "a.jpg", time=10**9)
    watcher = Watcher(folder)
    watcher.look(0)
    assert watcher.names() == ["a.jpg"]
    put(folder / "a.jpg", jpeg(99), time=5 * 10**9)
    assert watcher.names(0) == []
    (frame,) = watcher.look()
    assert frame.image[0, 0, 0] == pytest.approx(99, abs=2)


def test_a_file_that_is_deleted_before_its_turn_is_left_out(folder):
    for name in ("a.jpg", "b.jpg"):
        put(folder / name, time=10**9)
    watcher = Watcher(folder)
    watcher.look(0)
    watcher.now += SETTLE_SECONDS
    assert next(watcher._frames).source.endswith("a.jpg")
    (folder / "b.jpg").unlink()
    assert watcher.look() == []


def test_a_share_that_goes_away_and_comes_back_brings_no_duplicates(folder):
    put(folder / "a.jpg")
    watcher = Watcher(folder)
    watcher.look(0)
    assert watcher.names() == ["a.jpg"]
    away = folder.rename(folder.with_name("away"))
    with pytest.raises(CaptureError, match="cannot be listed"):
        watcher.look()
    folder.mkdir()  # the empty mount point
    watcher.again()
    assert watcher.names() == []
    folder.rmdir()
    away.rename(folder)
    put(folder / "b.jpg")
    assert watcher.names(0) == []
    assert watcher.names() == ["b.jpg"]


def test_only_new(folder):
    put(folder / "old.jpg")
    watcher = Watcher(folder, only_new=True)
    assert watcher.names(0) == watcher.names() == []
    put(folder / "new.jpg")
    watcher.look(0)
    assert watcher.names() == ["new.jpg"]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("camera:", {}, "a camera has a number"),
        ("camera:-1", {}, "a camera has a number"),
        ("rtsp://", {}, "no address of this kind"),
        ("http://user:secret@:80/x", {}, "http://:80/x: is no address"),
        ("http://host:notaport/", {}, "no address of this kind"),
        ("file.txt", {}, "is no live source; give camera:0"),
        ("nowhere", {"watch": True}, "is no folder"),
    ],
)
def test_what_is_no_live_source(source, options, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=message) as caught:
        open_capture(source, **options)
    assert "secret" not in str(caught.value)


def test_a_photo_has_its_own_pixels(folder):
    put(folder / "a.png", encode_image(picture(77), ".png"))
    watcher = Watcher(folder)
    watcher.look(0)
    (frame,) = watcher.look()
    assert (frame.image == 77).all()
    assert frame.decode_ms > 0
