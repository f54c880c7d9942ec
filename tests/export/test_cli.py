import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fre_export import cli
from fre_export.cli import parse_args
from fre_runtime.commands.common import run_command
from fre_runtime.model_dir import open_model_dir

TINY = ["--backbone", "resnet18", "--layers", "layer1", "--weights", "random", "--size", "32"]


def run(*argv):
    return run_command(cli, [str(arg) for arg in argv])


def test_parses_every_option():
    line = "photos --out=m --layers=a,b --size=128x256 --components=7 --io=float --groups=none"
    line += " --precision=bf16,int8 --max-components=a=3,b=64"
    args = parse_args(line.split(" "))
    assert args.layers == ("a", "b")
    assert args.size == (128, 256)
    assert (args.components, args.io, args.groups) == (7, "float", "none")
    assert args.precision == "bf16,int8"
    assert args.max_components == {"a": 3, "b": 64}
    assert parse_args(["photos", "--out=m"]).precision == "fp32"


@pytest.mark.parametrize(
    "text", ["64", "layer1", "layer1=", "=4", "layer1=4,many", "layer1=-1", "layer1=4,layer1=5"]
)
def test_limits_of_components_are_given_by_layer(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        parse_args(["photos", "--out=m", f"--max-components={text}"])
    assert (
        f"expected LAYER=NUMBER[,LAYER=NUMBER], each layer once, got {text}"
        in capsys.readouterr().err
    )


def test_writes_a_model_and_says_what_to_do_next(category, tmp_path, capsys, caplog):
    out = tmp_path / "model"
    assert run(category, "--out", out, *TINY, "--fpr", "0.2", "--json", tmp_path / "c.json") == 0
    printed = capsys.readouterr()
    for word in ("24 photos", "parity", "thresholds", f"fre-run {out}"):
        assert word in printed.out
    assert "random weights" in caplog.text
    card = json.loads((tmp_path / "c.json").read_text())
    assert card == json.loads((out / "model.json").read_text())


def test_lays_the_model_out_for_servers(category, tmp_path, capsys):
    servers = tmp_path / "servers"
    for version in (1, 2):
        argv = [category, "--out", tmp_path / "part", *TINY, "--fpr", "0.2", "--serving", servers]
        assert run(*argv, "--overwrite", "--quiet") == 0
        assert f"{servers}: part version {version} (fp32)" in capsys.readouterr().out
        laid = servers / f"triton/part/{version}/model.onnx"
        assert laid.read_bytes() == (tmp_path / "part/model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("out", "servers", "code", "message"),
    [
        ("part", "part/servers", 2, "must hold the model's own files only"),
        ("part", "part", 2, "must hold the model's own files only"),
        ("a part", "servers", 2, "'a part' cannot name a served model"),
        ("part", "file", 1, "is not a directory"),
    ],
)
def test_servers_are_looked_at_before_the_work(
    category, tmp_path, capsys, out, servers, code, message
):
    (tmp_path / "file").write_text("mine")
    argv = [category, "--out", tmp_path / out, *TINY, "--serving", tmp_path / servers]
    assert run(*argv) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert not printed.out
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["missing", "--out", "m"], 1, "missing: does not exist; give a folder of images"),
        ([".", "--out", "m", *TINY], 1, "holds no file; give a folder with photos"),
        (["PHOTOS", "--out", "m", "--backbone", "resnet19"], 2, "did you mean resnet18"),
        ([".", "--out", "m", "--fpr", "7"], 2, "fpr must lie between 0.000001 and 1, got 7.0"),
        ([".", "--out", "m", "--score", "mean"], 2, "choose p3, p2, sum, max"),
        (
            ["PHOTOS", "--out", "m", "--precision", "int8,fp8"],
            2,
            "precision 'fp8' does not exist; choose auto, or some of fp32, bf16, int8",
        ),
        (["PHOTOS", "--out", "m", "--weights", "w.pth"], 1, "w.pth: no such weights file"),
        ([".", "--out", "."], 1, "already exists; it holds more than a model"),
    ],
)
def test_fails_with_one_clear_line(argv, code, message, tmp_path, monkeypatch, capsys, category):
    monkeypatch.chdir(tmp_path)
    assert run(*(category if arg == "PHOTOS" else arg for arg in argv)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if not line.startswith("random weights")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_test_folder_is_no_place_to_learn_from(tmp_path, make_folder, capsys):
    make_folder(tmp_path / "train" / "good", 0)
    assert run(tmp_path, "--out", tmp_path / "m", *TINY) == 1
    assert str(Path("train") / "good") in capsys.readouterr().err


def interrupt(category, folder, due):
    """Run fre-export into ``folder / "out"``, stop it once ``due(out, said)``; (code, stderr)."""
    out, log = folder / "out", folder / "stderr"
    log.touch()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fre_export.cli"])  # else each would import torch for seconds
    argv = [str(category), "--out", str(out / "model"), *TINY]
    script = str(Path(__file__).with_name("preloaded.py"))
    globals_of = {"init_globals": {"job": {"argv": argv, "stderr": str(log)}}}
    process = context.Process(target=runpy.run_path, args=(script,), kwargs=globals_of, daemon=True)
    process.start()
    end = time.monotonic() + 120
    while not due(out, log.read_text()):
        assert process.exitcode is None, "it ended before the moment came"
        assert time.monotonic() < end
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    return process.exitcode, log.read_text()


def test_ctrl_c_while_libraries_load(category, tmp_path):
    command = [sys.executable, "-c", "from fre_export.launch import export; export()", category]
    with subprocess.Popen(
        [*command, "--out", tmp_path / "out/model", *TINY],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A test run in the background ignores Ctrl-C, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in said
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    "due",
    [
        lambda _, said: "random weights" in said,
        lambda out, _: any(out.glob(".model.*")),
        lambda out, _: any(out.glob(".model.*/openvino/model.xml")),
    ],
    ids=["while photos are read", "before the graph", "before the proof"],
)
def test_ctrl_c_leaves_nothing_behind(category, tmp_path, due):
    code, said = interrupt(category, tmp_path, due)
    assert code in (130, -signal.SIGINT)
    assert "Traceback" not in said
    assert not list(tmp_path.glob("out/*"))


def test_ctrl_c_that_comes_too_late_leaves_the_whole_model(category, tmp_path):
    interrupt(category, tmp_path, lambda out, _: (out / "model").exists())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]
    assert open_model_dir(tmp_path / "out" / "model").card.variants.keys() == {"fp32"}
