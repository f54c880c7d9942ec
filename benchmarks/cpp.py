"""Latency of the C++ programs of docs/embedding/cpp beside that of fre_runtime.

    python benchmarks/cpp.py MODEL [--programs build/cpp] [--json FILE]

For each engine and scope, C++ and Python take turns, each in a process of its own and with as many
threads; what is compared is the median of a turn. Scope graph: the golden image, which needs no
resizing; frame: the same at the size of a camera frame, resizing included. Decoding is in neither.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

from fre_runtime.environment import environment
from fre_runtime.model_dir import CARD, GOLDEN_IMAGE
from fre_runtime.threads import default_threads

FRAME = 1200, 1000
"""Width and height of a camera frame, pixels."""
WARM_UP = 50
"""Runs at the start of a turn that are not counted."""
GRAPHS = {"openvino": "openvino/model.xml", "onnxruntime": "model.onnx"}
PYTHON = """
import sys, time
from fre_runtime import Detector, read_image
model, engine, threads, repeat, photo = sys.argv[1:]
detector, image = Detector(model, engine, threads=int(threads)), read_image(photo)
for _ in range(int(repeat)):
    start = time.perf_counter()
    detector(image)
    print((time.perf_counter() - start) * 1000)
"""


def turn(command: list[str | Path]) -> float:
    """Median of one process's latencies, ms; a line is a number, or an object with ``ms``."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr}")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    times = [line["ms"] if isinstance(line, dict) else line for line in found]
    return statistics.median(times[WARM_UP:])


def compare(args: argparse.Namespace, engine: str, photo: Path) -> dict[str, object]:
    """Take turns; each round gives one ratio."""
    options = {"threads": str(default_threads()), "repeat": str(WARM_UP + args.runs)}
    program = args.programs / f"fre_{engine}"
    cpp = [program, "--threads", options["threads"], "--repeat", options["repeat"]]
    cpp += [args.model / GRAPHS[engine], photo]
    python = [sys.executable, "-c", PYTHON, args.model, engine, *options.values(), photo]
    rounds = [(turn(cpp), turn(python)) for _ in range(args.rounds)]
    ratios = [ours / theirs for ours, theirs in rounds]
    return {
        "cpp_ms": statistics.median(ours for ours, _ in rounds),
        "python_ms": statistics.median(theirs for _, theirs in rounds),
        "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--programs", type=Path, default=Path("build/cpp"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--runs", type=int, default=500, help="of each side in a round")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/cpp.json"))
    args = parser.parse_args()
    for engine in GRAPHS:
        if not (args.programs / f"fre_{engine}").exists():
            parser.error(f"{args.programs} has no fre_{engine}: build docs/embedding/cpp first")
    backbone = json.loads((args.model / CARD).read_text())["backbone"]["name"]
    golden, rows = args.model / GOLDEN_IMAGE, []
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.png"
        large = cv2.resize(cv2.imread(str(golden)), FRAME, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(frame), large)
        for engine in GRAPHS:
            for scope, photo in (("graph", golden), ("frame", frame)):
                row = {"engine": engine, "scope": scope, **compare(args, engine, photo)}
                print(row, flush=True)
                rows.append(row)
    report = {
        "environment": environment(),
        "backbone": backbone,
        "frame": FRAME,
        "rounds": args.rounds,
        "runs": args.runs,
        "results": rows,
    }
    args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
