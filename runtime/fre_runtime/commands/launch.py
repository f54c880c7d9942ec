"""Entry points of the commands: they import only the standard library until they run.

So Ctrl-C is answered with one line from the first moment on, while libraries still load.
"""

import gc
import importlib
import signal
import sys


def launch(module: str) -> None:
    """Run the command in ``module``: ``parse_args``, then ``run``; 130 when stopped by Ctrl-C."""
    try:
        command = importlib.import_module(module)
        common = importlib.import_module("fre_runtime.commands.common")
        code = common.run_command(command)
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        code = 130
    # The work is done or undone: a Ctrl-C while Python shuts down has nothing left to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # nor is there garbage to search for: after PyTorch that takes over a second
    sys.exit(code)


def run() -> None:
    """Entry point of fre-run."""
    launch("fre_runtime.commands.run")


def evaluate() -> None:
    """Entry point of fre-eval."""
    launch("fre_runtime.commands.evaluate")


def bench() -> None:
    """Entry point of fre-bench."""
    launch("fre_runtime.commands.bench")


def calibrate() -> None:
    """Entry point of fre-calibrate."""
    launch("fre_runtime.commands.calibrate")


def info() -> None:
    """Entry point of fre-info."""
    launch("fre_runtime.commands.info")


def serve() -> None:
    """Entry point of fre-serve."""
    launch("fre_runtime.commands.serve")


def deploy() -> None:
    """Entry point of fre-deploy."""
    launch("fre_runtime.commands.deploy")
