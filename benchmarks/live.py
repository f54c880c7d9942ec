"""What live lines cost: from capture to result, alone and several at once; and switching models.

    python benchmarks/live.py PHOTO MODEL [MODEL...] [--json FILE]

Each line reads an MJPEG camera of 25 frames a second on loopback (the photo as a 1200 x 1000 JPEG,
a little noise in each frame) and gives its events to a sink. The cameras run in a process of
their own, but on the same cores. Switching takes turns between the models of one pool: a cold
switch loads the model, a warm one finds it loaded.
"""

import argparse
import json
import multiprocessing
import socket
import statistics
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np

from fre_runtime.environment import environment, resident_mib
from fre_runtime.image import Image, encode_image, read_image
from fre_runtime.live.events import Event
from fre_runtime.live.http_stream import HttpStream
from fre_runtime.live.line import Line
from fre_runtime.live.models import ModelPool
from fre_runtime.live.supervisor import run_lines

ROOT = Path(__file__).parent.parent
FRAME = (1200, 1000)
RATE = 25.0
LINES = (1, 2, 4)
SECONDS = 20.0
SWITCHES = 200


class Latencies:
    """A sink that remembers how long each result took."""

    def __init__(self) -> None:
        self.ms: list[float] = []

    def emit(self, event: Event) -> None:
        """Take one event."""
        if event.latency_ms is not None:
            self.ms.append(event.latency_ms)

    def close(self) -> None:
        """Nothing to close."""


def camera(photo: Image, ready: Connection) -> None:
    """Serve MJPEG to whoever connects, until the process is ended."""
    rng = np.random.default_rng(0)
    frame = cv2.resize(photo, FRAME, interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noisy = (np.clip(frame + rng.integers(-3, 4, frame.shape), 0, 255) for _ in range(16))
    jpegs = [encode_image(one.astype(np.uint8), ".jpg") for one in noisy]
    server = socket.create_server(("127.0.0.1", 0))
    ready.send(server.getsockname()[1])

    def serve(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(
            b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n"
        )
        start = time.monotonic()
        number = 0
        while True:
            data = jpegs[number % len(jpegs)]
            try:
                client.sendall(b"--f\r\nContent-Length: %d\r\n\r\n" % len(data) + data + b"\r\n")
            except OSError:
                return
            number += 1
            time.sleep(max(0.0, start + number / RATE - time.monotonic()))

    while True:
        client, _ = server.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


def lines(models: list[Path], count: int, port: int) -> dict[str, object]:
    """Run ``count`` lines for a while, the models dealt out among them."""
    used = models[:count]
    pool = ModelPool(len(used), throughput=count > len(used))
    for model in used:
        pool.detector(model)
    sinks = [Latencies() for _ in range(count)]
    running = [
        Line(
            str(i),
            pool.scorer(used[i % len(used)]),
            HttpStream(f"http://127.0.0.1:{port}/"),
            [sinks[i]],
        )
        for i in range(count)
    ]
    stop = threading.Event()
    timer = threading.Timer(SECONDS, stop.set)
    timer.start()
    cpu = time.process_time()
    run_lines(running, stop)
    ms = np.concatenate([sink.ms for sink in sinks])
    return {
        "lines": count,
        "models": len(used),
        "threads_each": pool.threads,
        "captured": sum(line.counters.captured for line in running),
        "scored": sum(line.counters.scored for line in running),
        "dropped": sum(line.counters.dropped for line in running),
        "failed": sum(line.counters.failed for line in running),
        "latency_ms": {
            "median": float(np.median(ms)),
            "p95": float(np.percentile(ms, 95)),
            "max": float(ms.max()),
        },
        "cpu_seconds_per_second": (time.process_time() - cpu) / SECONDS,
        "rss_mib": resident_mib(),
    }


def switching(models: list[Path]) -> dict[str, object]:
    """Seconds until a model can be used: for the first time, and again."""
    pool = ModelPool()
    cold, warm = [], []
    for model in models:
        start = time.perf_counter()
        pool.detector(model)
        cold.append(time.perf_counter() - start)
    for i in range(SWITCHES):
        start = time.perf_counter()
        pool.detector(models[i % len(models)])
        warm.append(time.perf_counter() - start)
    return {
        "cold_ms": statistics.median(cold) * 1e3,
        "warm_ms": {"median": statistics.median(warm) * 1e3, "max": max(warm) * 1e3},
        "switches": SWITCHES,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/live.json")
    args = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    cameras = spawn.Process(target=camera, args=(read_image(args.photo), theirs), daemon=True)
    cameras.start()
    port = ours.recv()
    report: dict[str, object] = {
        "environment": environment(),
        "frame": FRAME,
        "rate": RATE,
        "seconds": SECONDS,
        "switching": switching(args.models),
        "lines": [],
    }
    print(json.dumps(report["switching"]))
    rows = [lines(args.models, count, port) for count in LINES]
    for row in rows:
        print(json.dumps(row))
    report["lines"] = rows
    cameras.terminate()
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
