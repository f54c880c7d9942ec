"""How commands behave towards people and logs: --quiet, plain lines, Ctrl-C."""

import signal
import types

import pytest

from fre_runtime import progress
from fre_runtime.commands import bench, calibrate, evaluate, launch, run, serve
from fre_runtime.commands.common import run_command


@pytest.mark.parametrize("command", [run, evaluate, bench, calibrate, serve])
def test_every_command_that_works_for_long_can_be_quiet(command, capsys):
    with pytest.raises(SystemExit):
        command.parse_args(["--help"])
    assert "--quiet" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["run", "evaluate", "bench", "calibrate", "info", "serve"])
def test_ctrl_c_ends_every_command_with_one_line(name, monkeypatch, capsys):
    def stopped(args):
        raise KeyboardInterrupt

    command = types.SimpleNamespace(parse_args=lambda argv: None, run=stopped)
    real = launch.importlib.import_module
    monkeypatch.setattr(
        launch.importlib,
        "import_module",
        lambda module: real(module) if module.endswith(".common") else command,
    )
    ignored = []
    monkeypatch.setattr(signal, "signal", lambda *arguments: ignored.append(arguments))
    with pytest.raises(SystemExit) as end:
        getattr(launch, name)()
    assert end.value.code == 130
    assert capsys.readouterr().err == "stopped\n"
    assert ignored == [(signal.SIGINT, signal.SIG_IGN)]  # nothing is left to stop


@pytest.mark.parametrize("quiet", [False, True])
def test_logs_get_plain_lines_and_none_where_quiet(
    uint8_model, category, quiet, monkeypatch, capsys
):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    argv = [str(uint8_model.path), str(category), *["--quiet"] * quiet]
    assert run_command(evaluate, argv) == 0
    told = capsys.readouterr()
    assert "image AUROC" in told.out
    lines = told.err.splitlines()
    assert bool(lines) is not quiet
    assert all(line.startswith("scoring: ") and line.isprintable() for line in lines)
