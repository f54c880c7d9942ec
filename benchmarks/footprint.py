"""What the runtime weighs on a fresh machine, and how fast it starts.

    python benchmarks/footprint.py MODEL [--json FILE]

For each engine: a new virtual environment, `pip install .[ENGINE]`, its size on disk without pip
and setuptools, the proof that no torch came along, the time to import, the time from the process's
first line to the first score of a JPEG of 1200 x 1000 pixels, and the resident memory after some
more, beside that of a process that has nothing but the engine and the bare backbone, and of one
that reads and resizes the same photo by OpenCV as well.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import onnx
import openvino
from bare import bare_onnx

from fre_edge.backbones import build_backbone
from fre_runtime.card import Card, read_card
from fre_runtime.engines import ENGINES
from fre_runtime.environment import environment
from fre_runtime.image import encode_image, read_image, resize
from fre_runtime.model_dir import CARD, GOLDEN_IMAGE

ROOT = Path(__file__).parent.parent
RUNS = 7
FRAME = (1000, 1200)
"""Height and width of what a camera gives, as for fre-bench's figures."""
IMPORT = """
import time
t = time.perf_counter()
import fre_runtime
package = time.perf_counter() - t
import fre_runtime.detector
print(package, time.perf_counter() - t)
"""
FIRST = """
import sys, time
t = time.perf_counter()
from fre_runtime import Detector
from fre_runtime.environment import resident_mib
detector = Detector(sys.argv[1], sys.argv[2])
detector(sys.argv[3])
seconds = time.perf_counter() - t
for _ in range(20):
    detector(sys.argv[3])
print(seconds, resident_mib())
"""
FLOOR = """
import os, sys
import numpy as np
batch = np.zeros((1, 3, int(sys.argv[3]), int(sys.argv[4])), np.float32)
if sys.argv[2] == "openvino":
    import openvino
    model = openvino.Core().read_model(sys.argv[1])
    model.reshape(list(batch.shape))
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = openvino.compile_model(model, "CPU", options).create_infer_request()
    run = lambda: request.infer([batch])
else:
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    run = lambda: session.run(None, {"input": batch})
for _ in range(20):
    run()
if len(sys.argv) > 5:
    import cv2
    for _ in range(20):
        cv2.resize(cv2.imread(sys.argv[5]), batch.shape[:1:-1])
pages = int(open("/proc/self/statm").read().split()[1])
print(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
"""


def save_bare(card: Card, path: Path) -> None:
    """Write the bare backbone of a model as ONNX."""
    backbone = build_backbone(card.backbone.name, tuple(card.backbone.layers))
    onnx.save_model(bare_onnx(backbone, (card.graph.height, card.graph.width)), path)


def size_mb(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def measure(engine: str, model: Path, photo: Path, bare: Path) -> dict:
    graph = read_card(model / CARD).graph
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        before = size_mb(Path(folder))
        pip = [python, "-m", "pip", "install", "--quiet", "--no-compile"]
        start = time.perf_counter()
        subprocess.run([*pip, "-c", ROOT / "constraints.txt", f"{ROOT}[{engine}]"], check=True)
        install = time.perf_counter() - start
        installed = subprocess.run(
            [python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True
        )
        packages = {p["name"]: p["version"] for p in json.loads(installed.stdout)}
        assert not {"torch", "onnx", "timm"} & packages.keys()
        size = size_mb(Path(folder)) - before

        def run(code: str, *arguments: str | Path) -> list[float]:
            done = subprocess.run(
                [python, "-c", code, *arguments], capture_output=True, check=True, cwd=folder
            )
            return [float(x) for x in done.stdout.split()]

        run(FIRST, model, engine, photo)  # byte-compiles and warms the file cache
        imports = [run(IMPORT) for _ in range(RUNS)]
        sides = (str(graph.height), str(graph.width))
        own = bare.with_suffix({"openvino": ".xml", "onnxruntime": ".onnx"}[engine])
        floors = [run(FLOOR, own, engine, *sides)[0] for _ in range(RUNS)]
        opencv = [run(FLOOR, own, engine, *sides, photo)[0] for _ in range(RUNS)]
        firsts = [run(FIRST, model, engine, photo) for _ in range(RUNS)]
    return {
        "engine": engine,
        "install_mb": round(size),
        "install_s": install,
        "packages": packages,
        "import_package_ms": statistics.median(i[0] for i in imports) * 1e3,
        "import_ms": statistics.median(i[1] for i in imports) * 1e3,
        "first_result_ms": statistics.median(f[0] for f in firsts) * 1e3,
        "rss_mib": statistics.median(f[1] for f in firsts),
        "bare_backbone_rss_mib": statistics.median(floors),
        "bare_backbone_opencv_rss_mib": statistics.median(opencv),
        "runs": RUNS,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/footprint.json")
    args = parser.parse_args()
    model = args.model.resolve()
    with tempfile.TemporaryDirectory() as folder:
        bare, photo = Path(folder) / "bare.onnx", Path(folder) / "photo.jpg"
        save_bare(read_card(model / CARD), bare)
        openvino.save_model(openvino.Core().read_model(bare), bare.with_suffix(".xml"), False)
        photo.write_bytes(encode_image(resize(read_image(model / GOLDEN_IMAGE), *FRAME), ".jpg"))
        rows = [measure(engine, model, photo, bare) for engine in ENGINES]
    args.json.write_text(
        json.dumps({"environment": environment(), "results": rows}, indent=1) + "\n"
    )
    for row in rows:
        print({key: value for key, value in row.items() if key != "packages"})


if __name__ == "__main__":
    sys.exit(main())
