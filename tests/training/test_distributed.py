"""One fit by several processes: as one would have made it, or one clear line."""

import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from fre_edge import FitOptions, fit
from fre_edge.team import Team, join
from fre_runtime.errors import UsageError
from fre_runtime.geometry import View
from fre_runtime.model_dir import open_model_dir
from fre_runtime.threads import available_cpus, share_of_cpus

SCRIPT = str(Path(__file__).with_name("rank.py"))
OPTIONS = FitOptions(
    backbone="resnet18", layers=("layer1",), weights="random", size=(32, 32), pool=2, fpr=0.2
)
# Sketches so small that they are cut, of blocks so small that there are several.
SMALL = [("fre_edge.strategies.incremental", "ROWS", 4), ("fre_edge.gathering", "BLOCK", 4)]


class Ranks:
    """Starts ranks out of one process that has imported torch, without torchrun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["fre_edge.fitting"])

    def start(self, size: int, images: Path, options: FitOptions | list[FitOptions], **job):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        faults = job.pop("faults", {})
        self.processes = []
        for rank in range(size):
            environ = {
                "RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size,
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
            mine = {
                "environ": {name: str(value) for name, value in environ.items()},
                "images": images,
                "options": options if isinstance(options, FitOptions) else options[rank],
                "out": self.folder / "fit.npz",
                "stderr": self.folder / f"stderr_{rank}",
                "fault": faults.get(rank, (None, 0)),
                "constants": [],
            }
            globals_of = {"init_globals": {"job": mine | job}}
            process = self.context.Process(
                target=runpy.run_path, args=(SCRIPT,), kwargs=globals_of, daemon=True
            )
            process.start()
            self.processes.append(process)

    def end(self) -> list[int | None]:
        """Exit codes."""
        for process in self.processes:
            process.join(60)
        return [process.exitcode for process in self.processes]

    def reached(self, fault: str, number: int) -> None:
        """Wait until so many are where they hang or wait."""
        deadline = time.monotonic() + 60
        while len(list(self.folder.glob(f"{fault}_*"))) < number:
            assert time.monotonic() < deadline, fault
            time.sleep(0.02)

    def said(self, rank: int) -> str:
        return (self.folder / f"stderr_{rank}").read_text()

    def fit(self, size: int, images: Path, options: FitOptions, **job):
        self.start(size, images, options, **job)
        codes = self.end()
        assert codes == [0] * size, [self.said(rank) for rank in range(size)]
        assert [self.said(rank) for rank in range(1, size)] == [""] * (size - 1)
        return np.load(self.folder / "fit.npz")


@pytest.fixture
def ranks(tmp_path):
    folder = tmp_path / "ranks"
    folder.mkdir()
    ranks = Ranks(folder)
    yield ranks
    for process in ranks.processes:
        if process.is_alive():
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_folder):
    """17 photos among 21 files: shards of unequal size, and all that is left out."""
    folder = make_folder(tmp_path_factory.mktemp("photos"), 17)
    (folder / "photo_004_notes.txt").write_text("no photo")
    shutil.copy(folder / "photo_003.png", folder / "photo_003_again.png")  # in the same shard
    shutil.copy(folder / "photo_001.png", folder / "photo_012_copy.png")  # in later ones
    shutil.copy(folder / "photo_001.png", folder / "photo_012_copy_2.png")
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    return fit(folder, OPTIONS)


def largest_angle(a, b) -> float:
    return float(scipy.linalg.subspace_angles(a.T.astype(float), b.T.astype(float)).max())


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_fit_what_one_does(ranks, folder, alone, size):
    found = ranks.fit(size, folder, OPTIONS)
    assert found["photos"].tolist() == [path.name for path in alone.photos]
    assert found["skipped"].tolist() == [f"{p.name}: {why}" for p, why in alone.skipped.items()]
    np.testing.assert_array_equal(found["kept0"], alone.state.kept[0])
    assert found["components0"].shape == alone.subspaces[0][0].components.shape
    assert largest_angle(found["components0"], alone.subspaces[0][0].components) < 1e-6
    assert found["threshold"] == pytest.approx(alone.calibration.image.value, rel=1e-6)


def test_more_processes_than_photos_fit_as_well(ranks, tmp_path, make_folder):
    photos = make_folder(tmp_path / "three", 3)
    options = replace(OPTIONS, groups="none")
    found = ranks.fit(4, photos, options)
    np.testing.assert_array_equal(found["kept0"], fit(photos, options).state.kept[0])


def test_tiles_of_a_photo_stay_together(ranks, folder):
    options = replace(OPTIONS, view=View(tile=[48, 48]))
    found, expected = ranks.fit(2, folder, options), fit(folder, options)
    assert len(found["kept0"]) > len(found["photos"]) == 17
    np.testing.assert_array_equal(found["kept0"], expected.state.kept[0])
    np.testing.assert_array_equal(found["sampled"], expected.state.photos)


def test_sketches_of_several_processes_merge_within_their_bound(ranks, tmp_path, make_folder):
    photos = make_folder(tmp_path / "two_shards", 30)
    options = replace(OPTIONS, method="incremental", components=2, groups="none")
    found = ranks.fit(2, photos, options, constants=SMALL)
    assert found["count"] == 30
    assert sorted(found["sampled"]) == list(range(30))
    exact = fit(photos, replace(options, method="pca"))
    np.testing.assert_array_equal(found["kept0"], exact.state.kept[0][found["sampled"]])
    np.testing.assert_allclose(found["mean0"], exact.subspaces[0][0].mean, atol=1e-6)
    captured, shortfall = found["captured0"]
    assert 0 < shortfall < 0.5
    centred = exact.state.kept[0] - exact.subspaces[0][0].mean.astype(float)
    truly = np.square(centred @ found["components0"].T).sum() / np.square(centred).sum()
    assert exact.subspaces[0][0].captured - shortfall <= truly <= exact.subspaces[0][0].captured
    assert captured <= truly + 1e-6


def test_sketches_merge_though_a_shard_is_empty_and_a_copy_is_in_two(ranks, tmp_path, make_folder):
    photos = make_folder(tmp_path / "few", 11)
    shutil.copy(photos / "photo_000.png", photos / "photo_011.png")
    for i in range(3, 6):  # a whole shard
        (photos / f"photo_{i:03d}.png").write_text("no photo")
    options = replace(OPTIONS, method="incremental", groups="none", components=2)
    found = ranks.fit(4, photos, options)
    assert found["count"] == 9
    assert "1 photos are copies of some in another process's shard" in ranks.said(0)
    soon = [("fre_edge.team", "FAREWELL", 1)]
    ranks.start(4, photos, replace(options, strict=True), constants=soon)
    assert ranks.end() == [1, 1, 1, 1]
    assert "strict allows none" in ranks.said(0)


def test_a_group_in_two_shards_is_warned_of(ranks, tmp_path, make_folder):
    photos = make_folder(tmp_path / "grouped", 12)
    table = tmp_path / "groups.csv"
    lines = [f"photo_{i:03d}.png,{'first' if i in (0, 11) else i}" for i in range(12)]
    table.write_text("\n".join(["file,group", *lines]))
    options = replace(OPTIONS, method="incremental", components=2, groups=str(table))
    ranks.fit(2, photos, options)
    assert "1 groups of" in ranks.said(0)
    assert "such as first" in ranks.said(0)


def test_scenes_in_two_shards_are_warned_of_unless_all_photos_are_kept(ranks, folder):
    warning = "a part with photos in two shards counts as two scenes"
    ranks.fit(2, folder, replace(OPTIONS, method="incremental", components=2))
    assert ranks.said(0).count(warning) == 1
    ranks.fit(2, folder, OPTIONS)
    assert warning not in ranks.said(0)


def test_too_few_photos_are_counted_over_all_shards(ranks, tmp_path, make_folder):
    photos = make_folder(tmp_path / "one", 1)
    (photos / "z.txt").write_text("no photo")
    ranks.start(2, photos, OPTIONS)
    assert ranks.end() == [1, 1]
    assert "error: 1 usable photo among 2 files" in ranks.said(0)
    assert ranks.said(1) == ""


def test_a_killed_process_is_missed(ranks, folder):
    ranks.start(
        2, folder, OPTIONS, faults={1: ("killed", 2)}, constants=[("fre_edge.team", "SILENCE", 2)]
    )
    assert ranks.end() == [1, -signal.SIGKILL]
    assert "error: rank 1 has said nothing for 2 s" in ranks.said(0)
    assert "was it killed" in ranks.said(0)
    assert not (ranks.folder / "fit.npz").exists()


def test_a_killed_first_process_is_missed_by_the_others(ranks, folder):
    faults = {0: ("hangs", 2), 1: ("waits", 2), 2: ("waits", 2)}
    ranks.start(3, folder, OPTIONS, faults=faults, constants=[("fre_edge.team", "BEAT", 0.0)])
    ranks.reached("hangs", 1)
    ranks.reached("waits", 2)
    ranks.processes[0].kill()
    ranks.processes[0].join()
    (ranks.folder / "go").touch()  # the others look at their notes after this photo
    assert ranks.end() == [-signal.SIGKILL, 1, 1]
    for rank in (1, 2):
        line = ranks.said(rank)
        assert line.startswith(f"error: rank {rank}: rank 0, or the torchrun that started it")
        assert "was it killed" in line
        assert line.count("\n") == 1


def test_where_the_first_process_cannot_speak_another_one_does(ranks, folder):
    ranks.start(2, folder, OPTIONS, faults={0: ("hangs", 2), 1: ("hangs", 2)})
    ranks.reached("hangs", 2)
    ranks.processes[0].kill()
    ranks.processes[0].join()
    ranks.processes[1].terminate()  # as torchrun does
    assert ranks.end() == [-signal.SIGKILL, 1]
    assert ranks.said(1).startswith("error: stopped by a signal: another process of this fit")
    assert ranks.said(1).count("\n") == 1


def test_what_torchrun_sends_to_the_others_ends_them_with_one_line(ranks, folder):
    ranks.start(2, folder, OPTIONS, faults={0: ("hangs", 2), 1: ("hangs", 2)})
    ranks.reached("hangs", 2)
    for process in ranks.processes:
        process.terminate()
    assert ranks.end() == [1, 1]
    assert "error: stopped by a signal: another process of this fit was killed" in ranks.said(0)
    assert ranks.said(1) == ""


def test_an_error_of_any_process_is_told_by_the_first(ranks, folder):
    ranks.start(4, folder, OPTIONS, faults={2: ("fails", 2)})
    assert ranks.end() == [1, 1, 1, 1]
    assert ranks.said(0).endswith("\nerror: rank 2: this photo is cursed\n")
    assert [ranks.said(rank) for rank in (1, 2, 3)] == [""] * 3


def test_processes_must_agree(ranks, folder):
    ranks.start(2, folder, [OPTIONS, replace(OPTIONS, pool=4)])
    assert ranks.end() == [1, 1]
    assert "rank 1 and rank 0 differ in pool (4 and 2)" in ranks.said(0)


def test_killed_processes_go_on_where_they_were(ranks, folder, alone, tmp_path):
    options = replace(OPTIONS, scratch=str(tmp_path / "scratch"))
    often = [("fre_edge.checkpoint", "EVERY", 0.0)]
    ranks.start(2, folder, options, faults={1: ("fails", 3)}, constants=often)
    assert ranks.end() == [1, 1]
    assert (tmp_path / "scratch" / "rank_1" / "progress.safetensors").is_file()
    found = ranks.fit(2, folder, options, faults={1: ("fails", 1)}, constants=often)
    np.testing.assert_array_equal(found["kept0"], alone.state.kept[0])
    assert found["skipped"].tolist() == [f"{p.name}: {why}" for p, why in alone.skipped.items()]
    assert not (tmp_path / "scratch" / "rank_1").exists()


@pytest.mark.slow
def test_torchrun_starts_the_command(category, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--no-python", sys.executable, "-c"]
    command += ["from fre_export.launch import export; export()"]
    command += [str(category), "--out", str(tmp_path / "model"), "--groups", "none", "--fpr", "0.2"]
    command += ["--backbone", "resnet18", "--layers", "layer1", "--weights", "random"]
    done = subprocess.run(
        [*command, "--size", "32", "--quiet"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fitted      24 photos") == 1
    assert open_model_dir(tmp_path / "model").card.training.images == 24


def test_shards_are_neighbours_and_hold_every_path():
    paths = [Path(str(i)) for i in range(10)]
    for size in (1, 3, 4, 12):
        team = Team(0, size)
        shards = [team.shard(paths, rank) for rank in range(size)]
        assert [path for shard in shards for path in shard] == paths
        assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_processes_share_the_cpus():
    shares = [share_of_cpus(part, 2) for part in range(2)]
    assert all(share and share <= available_cpus() for share in shares)
    if os.cpu_count() == 2 and len(available_cpus()) == 2:
        assert all(len(share_of_cpus(part, 5)) >= 1 for part in range(5))


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is set but RANK is not"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a number, is 'two'"),
    ],
)
def test_half_an_environment_is_refused(monkeypatch, environ, message):
    monkeypatch.delenv("RANK", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        join()


def test_without_torchrun_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team = join()
    assert (team.rank, team.size) == (0, 1)
