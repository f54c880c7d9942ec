"""Run by a client's own Python: the blocks of its page, the last of them for each photo.

Reads a task from stdin: ``blocks`` (sources), ``photos`` (paths; each becomes ``photo.png``),
``record`` (what to tell of each, as an expression) and ``probes`` (further expressions). Writes the
values to stdout; of an expression that fails, the error.
"""

import contextlib
import json
import shutil
import sys


def main() -> None:
    task = json.load(sys.stdin)
    *first, each = task["blocks"]
    names: dict = {"__name__": "__main__"}
    with contextlib.redirect_stdout(sys.stderr):
        for block in first:
            exec(block, names)
        answers = []
        for photo in task["photos"]:
            shutil.copyfile(photo, "photo.png")
            exec(each, names)
            answers.append(eval(task["record"], names))
        probes = {name: _tried(source, names) for name, source in task["probes"].items()}
    json.dump([answers, probes], sys.stdout, default=lambda array: array.tolist())


def _tried(source: str, names: dict) -> object:
    try:
        return eval(source, names)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


main()
