"""What every worker script shares: its two commands, and the protocol of the timed turns.

    python WORKER.py prepare CONFIG.json    fit and export; what it measured to PREPARED
    python WORKER.py serve CONFIG.json      load, then time calls as asked on stdin

Needs numpy and the standard library only, since each worker runs in its peer's own environment.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

PREPARED = "prepared.json"
WARM_UP_SECONDS = 3.0

Config = dict[str, Any]
Call = Callable[[Any], object]


def main(
    prepare: Callable[[Config, Path], dict], serve: Callable[[Config, Path], tuple[Call, dict]]
) -> None:
    """Run the command that was asked for.

    ``prepare`` and ``serve`` are given the configuration and the folder of the fitted model, which
    is also the working directory. ``serve`` returns what one call does with an image, uint8
    (256, 256, 3) RGB, and what runs it.
    """
    answers = _take_stdout()
    command, path = sys.argv[1:]
    config = json.loads(Path(path).read_text())
    folder = Path(config["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # the peers leave caches and logs in the working directory
    if command == "prepare":
        (folder / PREPARED).write_text(json.dumps(prepare(config, folder), indent=1) + "\n")
        return
    call, info = serve(config, folder)
    _take_turns(answers, call, info, np.load(config["image"]))


def _take_turns(answers: TextIO, call: Call, info: dict, image: Any) -> None:
    end = time.perf_counter() + WARM_UP_SECONDS
    while time.perf_counter() < end:
        call(image)
    _answer(answers, info)
    for line in sys.stdin:
        call(image)  # finds cold caches after the other's turn; not counted
        _answer(answers, [_timed(call, image) for _ in range(int(line))])


def _timed(call: Call, image: Any) -> float:
    start = time.perf_counter()
    call(image)
    return (time.perf_counter() - start) * 1e3


def _answer(answers: TextIO, value: object) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


def _take_stdout() -> TextIO:
    """Keep stdout for answers; what the libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers
