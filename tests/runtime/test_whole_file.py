"""Result files: whole, or as they were before; and never where they do harm."""

import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from fre_runtime.commands import bench, info, run
from fre_runtime.commands.common import run_command
from fre_runtime.errors import OutputError
from fre_runtime.files import labelled_images
from fre_runtime.image import encode_image
from fre_runtime.model_dir import open_model_dir
from fre_runtime.whole_file import check_writable, write_whole


def test_what_cannot_be_written_whole_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "new" / "figures.json"
    write_whole(path, b"first")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="figures.json: cannot be written .No space left"):
        write_whole(path, b"second")
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="pipes and links of Unix")
def test_links_stay_links_and_pipes_are_written_to(tmp_path):
    real, link, pipe = (tmp_path / name for name in ("real", "link", "pipe"))
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    os.mkfifo(pipe)
    heard = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    reader.start()
    check_writable(pipe)
    write_whole(pipe, b"told")
    reader.join(20)
    assert heard == [b"told"]


@pytest.mark.parametrize("target", ["model.json", "new.json", "openvino/new.json"])
def test_no_result_goes_into_a_model_directory(target, uint8_model, tmp_path, capsys):
    model = shutil.copytree(uint8_model.path, tmp_path / "model")
    cases = ((info, ["--json"]), (run, ["none.png", "--json"]), (run, ["none.png", "--save"]))
    for command, arguments in cases:
        argv = [str(model), *arguments, str(model / target)]
        assert run_command(command, argv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "lies in the model directory" in line
    open_model_dir(model)


def test_bench_learns_early_that_it_cannot_write(uint8_model, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr(bench, "run", lambda args: pytest.fail("work before the check"))
    assert run_command(bench, [str(uint8_model.path), "--json", str(tmp_path / "file/a.json")]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="closes a descriptor by a shell")
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-"])
def test_a_closed_stderr_costs_no_result(closed, uint8_model, tmp_path):
    code = "import sys; from fre_runtime.commands import launch; launch.run()"
    photo = uint8_model.path / "golden" / "image.png"
    target = tmp_path / "out.json"
    line = f'"$0" -c "$1" "$2" "$3" --json "$4" {closed}'
    argv = ["sh", "-c", line, sys.executable, code, uint8_model.path, photo, target]
    done = subprocess.run([str(a) for a in argv], check=False, stdout=subprocess.DEVNULL)
    assert done.returncode == 0
    assert json.loads(target.read_text())["score"] is not None


def test_masks_lie_where_their_photos_lie(tmp_path):
    """Two cameras may give their photos the same names."""
    photo = encode_image(np.zeros((8, 8, 3), np.uint8), ".png")
    for folder in ("test/scratch/1", "test/scratch/2", "test/scratch", "ground_truth/scratch/2"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        name = "000_mask.png" if folder.startswith("ground") else "000.png"
        (tmp_path / folder / name).write_bytes(photo)
    (tmp_path / "ground_truth/scratch/000_mask.png").write_bytes(photo)
    masks = {image.path: image.mask for image in labelled_images(tmp_path)}
    truth = tmp_path / "ground_truth/scratch"
    assert masks == {
        tmp_path / "test/scratch/000.png": truth / "000_mask.png",
        tmp_path / "test/scratch/1/000.png": None,
        tmp_path / "test/scratch/2/000.png": truth / "2/000_mask.png",
    }
