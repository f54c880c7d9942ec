"""Entry points of the commands: they import only the standard library until they run.

So Ctrl-C is answered with one line from the first moment on, while libraries still load.
"""

import importlib
import sys


def launch(module: str) -> None:
    """Run the command in ``module``: ``parse_args``, then ``run``; 130 when stopped by Ctrl-C."""
    try:
        command = importlib.import_module(module)
        common = importlib.import_module("fre_runtime.commands.common")
        sys.exit(common.run_command(command))
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)


def run() -> None:
    """Entry point of fre-run."""
    launch("fre_runtime.commands.run")


def evaluate() -> None:
    """Entry point of fre-eval."""
    launch("fre_runtime.commands.evaluate")


def bench() -> None:
    """Entry point of fre-bench."""
    launch("fre_runtime.commands.bench")


def info() -> None:
    """Entry point of fre-info."""
    launch("fre_runtime.commands.info")
