"""Pictures of what was anomalous, below a quota."""

import pytest

from fre_runtime.errors import OutputError
from fre_runtime.image import read_image
from fre_runtime.live.sinks import quota
from fre_runtime.live.sinks.anomaly_images import AnomalyImages
from fre_runtime.live.sinks.outlet import Outlet
from tests.live.sink_events import event, stale, wait_for


def test_images_of_anomalies(tmp_path):
    sink = AnomalyImages(tmp_path / "out")
    sink.emit(event(7))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["20231114T221327.500Z_top_7.jpg", "20231114T221327.500Z_top_7_map.jpg"]
    assert read_image(tmp_path / "out" / names[0]).shape == (48, 64, 3)
    sink.emit(stale())  # nothing to be seen
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_images_stay_below_the_quota_by_removing_the_oldest(tmp_path):
    theirs = [tmp_path / name for name in ("notes.txt", "photo.jpg", "20231114_top_1.jpg")]
    for path in theirs:
        path.write_bytes(bytes(10_000))
    one = AnomalyImages(tmp_path)
    one.emit(event(0))
    size = sum(path.stat().st_size for path in tmp_path.glob("*Z_*.jpg"))
    sink = AnomalyImages(tmp_path, quota=3 * size)  # as after a start: counts what is there
    for number in range(1, 8):
        sink.emit(event(number))
        assert sum(path.stat().st_size for path in tmp_path.glob("*Z_*.jpg")) <= 3 * size
    left = sorted(path.name for path in tmp_path.glob("*Z_*.jpg"))
    assert len(left) == 6
    assert left[-1].endswith("_7_map.jpg")
    assert not any("_top_0" in name for name in left)
    assert all(path.exists() for path in theirs)
    with pytest.raises(OSError, match="more than the quota"):
        AnomalyImages(tmp_path, quota=100).emit(event(9))


def test_images_survive_a_full_disk_and_a_folder_that_goes_away(tmp_path, small_files, monkeypatch):
    folder = tmp_path / "out"
    out = Outlet(AnomalyImages(folder), "x", pictures=True)
    small_files(100)
    out.emit(event(0))
    wait_for(lambda: out.lost == 1)
    assert list(folder.iterdir()) == []  # nothing half-written
    small_files(10**7)
    folder.rmdir()
    out.emit(event(1))
    wait_for(lambda: out.delivered == 1)
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setattr(quota, "RESERVE_BYTES", 1 << 62)
    out.emit(event(2))
    wait_for(lambda: out.lost == 2)
    assert "MiB are free" in out.trouble
    out.close()


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be used"):
        AnomalyImages(tmp_path / "file" / "x")
