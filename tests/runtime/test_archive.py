"""Scoring an archive on a cluster of two workers: as one process would, resumable."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from fre_runtime import Detector, archive
from fre_runtime.archive import ClusterError, score_archive
from fre_runtime.commands import run as run_module
from fre_runtime.commands.common import run_command
from fre_runtime.errors import MissingDependencyError, OutputError, UsageError
from fre_runtime.folder_lock import LOCK, alone_in
from fre_runtime.records import record
from fre_runtime.sources import expand, frames


@pytest.fixture(scope="module")
def photos(tmp_path_factory, make_folder):
    """Ten files, one of them no photo, one with a name that is no Unicode."""
    folder = make_folder(tmp_path_factory.mktemp("archive"), 8)
    (folder / "broken.png").write_bytes(b"\x89PNG no more")
    shutil.copy(folder / "photo_000.png", os.fsencode(folder) + b"/odd_\xff.png")
    return folder


def by_one_process(model, photos):
    detector = Detector(model, threads=1)
    found = [
        record(frame, None if frame.image is None else detector(frame.image))
        for frame in frames(expand([str(photos)]))
    ]
    return [json.loads(json.dumps(line | {"ms": None})) for line in found]


def lines_of(folder):
    text = "".join(part.read_text() for part in sorted(folder.glob("part-*.jsonl")))
    return [json.loads(line) | {"ms": None} for line in text.splitlines()]


@pytest.fixture(scope="module")
def cluster():
    """Two workers, with one session for all tests."""
    ray = archive._import_ray()
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        object_store_memory=archive.LOCAL_STORE,
    )  # fmt: skip
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_a_cluster_scores_as_one_process_does_and_goes_on(
    uint8_model, photos, cluster, tmp_path, capsys
):
    out = tmp_path / "scores"
    counts = score_archive(uint8_model.path, [str(photos)], out, block=3)
    assert sum(counts.values()) == 10
    assert counts["invalid"] == 1
    expected = by_one_process(uint8_model, photos)
    assert lines_of(out) == expected
    assert len(list(out.glob("part-*.jsonl"))) == 4

    # What is finished is left alone; what is missing is done.
    kept, lost = out / "part-000001.jsonl", out / "part-000002.jsonl"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    damaged = out / "part-000000.jsonl"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    (out / ".part-000002.jsonl.host.1").write_text("of a worker that was killed")
    assert score_archive(uint8_model.path, [str(photos)], out, block=3) == counts
    assert kept.stat().st_mtime_ns == before
    assert lines_of(out) == expected
    assert not list(out.glob(".part-*"))

    # The same by the command; one block, and a folder that is not there is a plain error.
    argv = [uint8_model.path, photos, "--ray", "--json", tmp_path / "by_command"]
    assert run_command(run_module, [str(arg) for arg in argv]) == 0
    assert "1 invalid" in capsys.readouterr().out
    assert lines_of(tmp_path / "by_command") == expected


@pytest.mark.slow
def test_a_worker_that_cannot_write_is_a_plain_error(uint8_model, photos, cluster, tmp_path):
    out = tmp_path / "scores"
    (out / "part-000000.jsonl").mkdir(parents=True)  # in the way of the result
    (out / archive.PLAN).write_text("{}")
    with pytest.raises(UsageError, match="holds results of another model"):
        score_archive(uint8_model.path, [str(photos)], out)
    (out / archive.PLAN).unlink()
    (out / "part-000000.jsonl").rmdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        score_archive(uint8_model.path, [str(photos)], out)
    with pytest.raises(UsageError, match="the cluster has 2 CPUs"):
        next(archive._score(cluster, [{"number": 0, "paths": b"x"}], {}, 3))
    # Nothing of the block is there on the machine of the worker: nobody mounted the archive.
    worker = {
        "model": str(uint8_model.path), "engine": "auto", "variant": "fp32", "threads": 1,
        "max_pixels": 10**6, "folder": str(tmp_path), "work_folder": str(tmp_path),
    }  # fmt: skip
    row = {"number": 7, "paths": b"/gone/1.png\0/gone/2.png"}
    with pytest.raises(ClusterError, match="a worker failed: none of the 2 files from /gone/1.png"):
        next(archive._score(cluster, [row], worker, 1))
    assert not (tmp_path / "part-000007.jsonl").exists()


def test_other_photos_do_not_go_into_the_same_folder(uint8_model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_score", lambda *args: iter(()))
    monkeypatch.setattr(archive, "_Session", lambda *args: memoryview(b""))
    monkeypatch.setattr(archive, "_import_ray", lambda: None)
    with pytest.raises(OSError, match="give a folder that all machines share"):
        score_archive(uint8_model.path, [str(photos)], tmp_path / "out")
    with pytest.raises(UsageError, match="holds results of another sources"):
        score_archive(uint8_model.path, [str(photos / "photo_000.png")], tmp_path / "out")


@pytest.fixture
def by_hand(monkeypatch):
    """Without a cluster: the numbers of the blocks that would be scored, which then are."""
    asked: list[int] = []

    def score(ray, rows, worker, threads):
        scorer = archive.Scorer(**worker)
        for row in rows:
            asked.append(row["number"])
            done = scorer({"number": np.array([row["number"]]), "paths": np.array([row["paths"]])})
            yield Counter({state: int(done[state][0]) for state in archive.STATES})

    monkeypatch.setattr(archive, "_score", score)
    monkeypatch.setattr(archive, "_Session", lambda *args: memoryview(b""))
    monkeypatch.setattr(archive, "_import_ray", lambda: None)
    return asked


def test_photos_of_the_same_name_are_told_apart(
    by_hand, uint8_model, tmp_path, make_folder, monkeypatch
):
    model, out = uint8_model.path.absolute(), tmp_path / "out"
    for line in ("line1", "line2"):
        make_folder(tmp_path / line / "photos", 3)
    monkeypatch.chdir(tmp_path / "line1")
    score_archive(model, ["photos"], out, quiet=True)
    assert lines_of(out)[0]["source"] == "photos/photo_000.png"  # as typed
    monkeypatch.chdir(tmp_path / "line2")
    with pytest.raises(UsageError, match="results of another sources .* or changed"):
        score_archive(model, ["photos"], out)
    monkeypatch.chdir(tmp_path)
    score_archive(model, ["line1/photos"], out)  # the same, from elsewhere
    assert by_hand == [0]
    photo = tmp_path / "line1" / "photos" / "photo_001.png"
    os.utime(photo, ns=(0, photo.stat().st_mtime_ns + 1))
    with pytest.raises(UsageError, match="results of another sources"):
        score_archive(model, ["line1/photos"], out)


def test_a_file_that_vanishes_is_a_result(by_hand, uint8_model, photos, tmp_path, monkeypatch):
    found = [*expand([str(photos)]), tmp_path / "gone.png"]
    monkeypatch.setattr(archive, "expand", lambda sources: found)
    counts = score_archive(uint8_model.path, ["unused"], tmp_path / "out", quiet=True)
    assert counts["invalid"] == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-20],
        lambda text: "",
        lambda text: text[: text.index("\n") + 1],  # ends with a whole line
        lambda text: text.replace('"state"', '"stage"'),
        lambda text: text.replace('"good"', "1").replace('"anomalous"', "1"),
        lambda text: "[]\n" * 3,
    ],
)
def test_a_damaged_file_is_scored_again(by_hand, uint8_model, photos, tmp_path, damage):
    out = tmp_path / "out"
    counts = score_archive(uint8_model.path, [str(photos)], out, block=4, quiet=True)
    part = out / "part-000001.jsonl"
    expected = lines_of(out)
    text = part.read_text()
    assert damage(text) != text
    part.write_text(damage(text))
    by_hand.clear()
    assert score_archive(uint8_model.path, [str(photos)], out, block=4, quiet=True) == counts
    assert by_hand == [1]
    assert lines_of(out) == expected


def test_two_runs_do_not_write_into_one_folder(by_hand, uint8_model, photos, tmp_path):
    out = tmp_path / "out"
    with alone_in(out):  # as a run that is at work
        live = out / ".part-000000.jsonl.host.1"
        live.touch()
        with pytest.raises(OutputError, match="another run writes its results there; wait until"):
            score_archive(uint8_model.path, [str(photos)], out)
        assert live.exists()
        live.unlink()
    assert by_hand == []
    score_archive(uint8_model.path, [str(photos)], out, quiet=True)
    assert by_hand == [0]
    assert not (out / LOCK).exists()


def test_ray_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fre-edge\[distributed\]'"):
        archive._import_ray()


def test_results_of_a_cluster_go_into_a_folder(uint8_model, photos, capsys):
    for arguments in (["--json", "-"], [], ["--json", "x", "--save", "y"]):
        argv = [str(uint8_model.path), str(photos), "--ray", "local", *arguments]
        assert run_command(run_module, argv) == 2
    assert "give --json FOLDER" in capsys.readouterr().err


@pytest.mark.slow
def test_an_address_where_nobody_is_gives_one_line(uint8_model, photos, tmp_path):
    command = [sys.executable, "-c", "from fre_runtime.commands.launch import run; run()"]
    command += [str(uint8_model.path), str(photos), "--ray", "127.0.0.1:1"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: 127.0.0.1:1: no Ray cluster can be reached there")
    assert done.stderr.count("\n") == 1
