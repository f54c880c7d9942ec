"""Timing two worker processes in turn, so that both see the same drift of the machine's speed."""

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fre_runtime.latency import Measurement, bootstrap

CALLS = 8
"""Timed calls in one turn; one more before them is not counted."""
MIN_TURNS = 10
PAUSE = 0.05
"""Seconds between turns, for the threads of the side that has just run to fall asleep."""


class WorkerError(RuntimeError):
    """A worker ended; its message is the last line of its log."""

    def __init__(self, log: Path) -> None:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        super().__init__(lines[-1][:300] if lines else f"{log.name} is empty")


class Worker:
    """A process that loads one model, then answers each number of calls with their times."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        try:
            self.info: dict = self._answer()
        except WorkerError:
            self.close()
            raise

    def run(self, calls: int) -> list[float]:
        """Milliseconds of each call."""
        try:
            self._process.stdin.write(f"{calls}\n")
            self._process.stdin.flush()
        except OSError:
            raise WorkerError(self._log) from None
        return self._answer()

    def cpu_seconds(self) -> float:
        """Processor time that all its threads have used, or nan where the system does not tell."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> object:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise WorkerError(self._log)
        return json.loads(line)


def compare(theirs: Worker, ours: Worker, seconds: float) -> dict:
    """Alternate the two for ``seconds``; who begins alternates too.

    Returns their and our latency, the ratio of their median time to ours in each pair of turns
    with a 95% bootstrap interval, and how busy each side kept the processor while it was not its
    turn (1 = one core).
    """
    sides = (theirs, ours)
    turns: tuple[list[list[float]], list[list[float]]] = ([], [])
    idle: tuple[list[float], list[float]] = ([], [])
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(turns[0]) < MIN_TURNS:
        first = len(turns[0]) % 2
        for side in (first, 1 - first):
            time.sleep(PAUSE)
            other, before, began = 1 - side, sides[1 - side].cpu_seconds(), time.perf_counter()
            turns[side].append(sides[side].run(CALLS))
            used = sides[other].cpu_seconds() - before
            idle[other].append(used / (time.perf_counter() - began))
    a, b = (np.array(side) for side in turns)
    return {
        "turns": len(a),
        "calls_a_turn": CALLS,
        "their_ms": _latency(a),
        "our_ms": _latency(b),
        "ratio": bootstrap(np.median(a, axis=1) / np.median(b, axis=1)),
        "idle_cores": {"theirs": float(np.mean(idle[0])), "ours": float(np.mean(idle[1]))},
    }


def _latency(times: NDArray[np.float64]) -> dict[str, float]:
    return Measurement(times.ravel(), times.sum() / 1e3).latency()
