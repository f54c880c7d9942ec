"""Runs the code blocks of a page of the documentation, one after the other, as a reader would.

A page is parsed by Sybil. Blocks of ``python`` run in one namespace, those of ``bash`` and
``console`` in the current folder. In ``console`` blocks lines that begin with ``$`` are commands,
and the others what they print: each must appear, whatever its numbers, and ``...`` stands for
anything.

Comments that a reader does not see steer it::

    <!-- skip: next "needs a camera" -->

    <!-- invisible-code-block: python
    what the page takes for granted
    -->
"""

import contextlib
import io
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from unittest import SkipTest
from unittest.mock import patch

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parents[2]
RUN = ("python", "bash", "console")
"""Languages whose blocks are run."""
SHOWN = ("text", "toml", "json", "nginx", "ini", "dockerfile", "powershell", "csv")
"""Languages whose blocks are only looked at."""
ADDED = {
    # A page shows alternatives that write to one folder.
    "fre-export": ("--overwrite",),
    "fre-calibrate": ("--overwrite",),
    # What is measured here is never looked at.
    "fre-bench": ("--duration", "0.02", "--max-seconds", "0.05"),
}
"""What commands are told besides, so that they suit a test."""
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
COMMANDS = {name: EntryPoint(name, value, "console_scripts") for name, value in SCRIPTS.items()}
"""The commands that an installation has."""
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]\d+)?")


def run_page(page: Path, port: int, **namespace: object) -> list[str]:
    """Run the blocks of a page in the current folder; gives what was skipped, with the reason.

    Parameters
    ----------
    port
        Takes the place of port 8080 of this machine, which may be in use.
    namespace
        What invisible blocks may use.

    Raises
    ------
    AssertionError
        Naming page and line, when a block fails or prints something else than the page shows.
    """
    copy = Path(page.name)
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("127.0.0.1:8080", f"127.0.0.1:{port}"), encoding="utf-8")
    document = Sybil(PARSERS).parse(copy)
    document.namespace.update(namespace)
    skipped = []
    for example in document.examples():
        where = f"{page.relative_to(ROOT)}:{example.line}"
        try:
            example.evaluate()
        except SkipTest as reason:
            skipped.append(f"{where}: {reason}")
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            raise AssertionError(f"{where}: {kind}{error}") from error
    return skipped


def fences(page: Path) -> list[tuple[int, str]]:
    """Line and language of every fenced block of a page."""
    found, fence = [], ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        mark = re.match(r" *(`{3,}|~{3,})(.*)", line)
        if mark and not fence:
            fence = mark[1]
            found.append((number, mark[2].strip()))
        elif mark and mark[1].startswith(fence) and not mark[2].strip():
            fence = ""
    return found


def _bash(example: Example) -> None:
    for line in _lines(example.parsed):
        code, printed = _execute(line)
        assert code == 0, f"{line!r} exited with {code}:\n{printed}"


def _console(example: Example) -> None:
    command, expected = "", []
    for line in [*_lines(example.parsed), "$ true"]:
        if line.startswith("$ "):
            _expect(command, expected)
            command, expected = line[2:], []
        else:
            expected.append(line)


def _expect(command: str, expected: Sequence[str]) -> None:
    """Run a command that must print the lines; it may fail if they begin with ``error:``."""
    if not command:
        return
    code, printed = _execute(command)
    fails = any(line.startswith("error: ") for line in expected)
    assert (code != 0) == fails, f"{command!r} exited with {code}:\n{printed}"
    for line in expected:
        parts = (re.escape(part) for part in NUMBER.sub("\0", line).split("..."))
        pattern = ".*".join(parts).replace("\0", NUMBER.pattern)
        assert re.search(pattern, printed), f"{command!r} did not print {line!r} but:\n{printed}"


def _lines(source: str) -> list[str]:
    """Lines that are not empty; one that ends with a backslash goes on in the next."""
    return [line for line in source.replace("\\\n", " ").splitlines() if line.strip()]


def _execute(line: str) -> tuple[int, str]:
    """Run one line; gives the exit code and all that was printed.

    Our own commands run inside this process, which saves importing torch each time.
    """
    words = shlex.split(line, comments=True)
    plain = not re.search(r"[|&;<>$`]", " ".join(words))
    if words and words[0] in COMMANDS and plain:
        return _call([*words, *ADDED.get(words[0], ())])
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        env=os.environ | {"PATH": tools},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout


def _call(words: list[str]) -> tuple[int, str]:
    """Call the entry point of an installed command as its script does; what it sets is set back."""
    printed, root = io.StringIO(), logging.getLogger()
    handler, handlers, level = signal.getsignal(signal.SIGINT), root.handlers, logging.root.level
    root.handlers = []
    try:
        with (
            patch.object(sys, "argv", words),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            COMMANDS[words[0]].load()()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        signal.signal(signal.SIGINT, handler)
        root.handlers = handlers
        root.setLevel(level)
        logging.disable(logging.NOTSET)
    return code, printed.getvalue()


PARSERS = (
    SkipParser(),
    PythonCodeBlockParser(),
    CodeBlockParser("bash", _bash),
    CodeBlockParser("console", _console),
)
