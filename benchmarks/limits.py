"""How near the whole model comes to the bare backbone, and the pipeline to the bare engine.

    python benchmarks/limits.py [--seconds 15] [--json FILE] [--only NAME ...]

Each figure is a ratio of medians of two things called in turn in one process, batch 1, the same
engine, precision and threads (`fre_runtime.latency.measure_pair`):

* graph: the whole model (uint8 image at model size in; score, label, map and mask out) over the
  bare truncated backbone (float input, taps out), both as raw inference requests, loaded
  anew several times, since the same graph differs by some percent from one load to the next;
* detector: ``Detector(image)`` on an array at model size over the raw request;
* frame: ``Detector(frame)`` on a 1200 x 1000 camera frame over the raw request;
* throughput: frames a second over those that OpenVINO's benchmark_app reports for the same file,
  run in turn, several times.

Models are fitted on the solar cells of elpv-dataset: EfficientNet-Lite0 at the defaults, and
ResNets with random weights, whose speed is that of trained ones (their int8 scores are noise, so
they go without parity proof). ONNX Runtime's threads do not spin while they wait: two sessions in
one process would otherwise take the cores from each other.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import openvino
from bare import bare_onnx
from elpv import lay_out

from fre_edge import FitOptions, fit
from fre_edge.fitting import Fit
from fre_export import ExportOptions, export
from fre_export.fold import graph_of
from fre_export.onnx_graph import for_onnxruntime, join, save_onnx, trace_head, trace_trunk
from fre_export.openvino_ir import save_ir
from fre_export.quantise import SAMPLES, quantise
from fre_runtime import Detector
from fre_runtime.engines.base import Settings
from fre_runtime.engines.onnxruntime import OnnxRuntimeEngine
from fre_runtime.engines.openvino import config, executed_precision
from fre_runtime.environment import environment
from fre_runtime.image import read_image, resize
from fre_runtime.latency import (
    Budget,
    Measurement,
    Pair,
    measure_pair,
    measure_stream,
    ratio_of,
)
from fre_runtime.model_dir import GOLDEN_IMAGE, ModelDir
from fre_runtime.photos import PhotoReader
from fre_runtime.threads import default_threads

FRAME = (1200, 1000)
PIPELINE = "pipeline"
RUNS = 5
"""Turns of benchmark_app and of ours."""
ROUNDS = 4
"""Times that both graphs of a pair are loaded."""
Making = Callable[[], Callable[[], object]]
"""Loads what is to be called."""


@dataclass(frozen=True)
class Case:
    """A model to measure, and the largest ratio of whole to bare that is aimed at."""

    name: str
    options: FitOptions
    targets: dict[tuple[str, str], float]
    """By engine and variant."""


CASES = (
    Case(
        "efficientnet_lite0",
        FitOptions(fpr=0.05),
        {
            ("openvino", "fp32"): 1.03,
            ("onnxruntime", "fp32"): 1.06,
            ("openvino", "bf16"): 1.08,
            ("openvino", "int8"): 1.15,
            ("onnxruntime", "int8"): 1.15,
        },
    ),
    Case(
        "resnet50",
        FitOptions("resnet50", weights="random", components=200, fpr=0.05),
        {
            ("openvino", "fp32"): 1.08,
            ("onnxruntime", "fp32"): 1.12,
            ("openvino", "bf16"): 1.30,
            ("openvino", "int8"): 1.50,
            ("onnxruntime", "int8"): 1.50,
        },
    ),
    Case(
        "resnet18",
        FitOptions("resnet18", weights="random", components=200, fpr=0.05),
        {},
    ),
)


def bare_models(fitted: Fit, folder: Path) -> dict[str, Path]:
    """ONNX files of the bare backbone in float32 and quantised as the variant is."""
    spec = fitted.backbone.spec
    model = bare_onnx(fitted.backbone, fitted.size)
    reader = PhotoReader(fitted.photos[:SAMPLES], *fitted.size)
    mean, std = (np.float32(v).reshape(1, 3, 1, 1) for v in (spec.mean, spec.std))
    inputs = ((p.image.transpose(2, 0, 1)[None] - mean) / std for p in reader)
    paths = {"fp32": folder / "bare.onnx", "int8": folder / "bare-int8.onnx"}
    onnx.save_model(model, paths["fp32"])
    onnx.save_model(quantise(model, (i.astype(np.float32) for i in inputs)), paths["int8"])
    return paths | {"bf16": paths["fp32"]}


def whole_models(fitted: Fit, folder: Path) -> dict[tuple[str, str], Path]:
    """Files of the whole model by engine and variant, as fre-export writes them."""
    graph = graph_of(fitted, ExportOptions())
    layers = len(fitted.shapes)
    trunk = trace_trunk(fitted.extractor(), graph, layers)
    reader = PhotoReader(fitted.photos[:SAMPLES], *fitted.size)
    trunks = {
        "fp32": trunk,
        "bf16": trunk,
        "int8": quantise(trunk, (p.image[None] for p in reader)),
    }
    head = trace_head(fitted.head(), fitted.shapes, graph)
    paths = {}
    for name, one in trunks.items():
        joined = join(one, head, {})
        paths["openvino", name] = folder / f"whole-{name}" / "model.xml"
        save_ir(joined, {}, paths["openvino", name])
        if name != "bf16":
            paths["onnxruntime", name] = folder / f"whole-{name}.onnx"
            save_onnx(for_onnxruntime(joined), paths["onnxruntime", name])
    return paths


def openvino_request(path: Path, variant: str, batch: np.ndarray) -> Callable[[], object]:
    precision = {"fp32": "f32"}.get(variant, variant)
    model = openvino.Core().read_model(path)
    model.reshape({model.inputs[0].get_any_name(): list(batch.shape)})
    compiled = openvino.compile_model(model, "CPU", config(Settings(default_threads(), precision)))
    if executed_precision(compiled) != precision:
        raise RuntimeError(f"{path.name} runs in {executed_precision(compiled)}, not {precision}")
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(batch, shared_memory=True))
    return request.infer


def onnxruntime_request(path: Path, batch: np.ndarray) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: batch}
    return lambda: session.run(None, feed)


def raw_request(engine: str, path: Path, variant: str, batch: np.ndarray) -> Callable[[], object]:
    if engine == "openvino":
        return openvino_request(path, variant, batch)
    return onnxruntime_request(path, batch)


def measure_afresh(ours: Making, theirs: Making, budget: Budget) -> Pair:
    """`measure_pair`, several times with both loaded anew: where their memory lies matters."""
    each = Budget(budget.seconds / ROUNDS, budget.frames // ROUNDS, cap=budget.cap / ROUNDS)
    pairs = [measure_pair(ours(), theirs(), each) for _ in range(ROUNDS)]
    a, b = (
        np.concatenate([getattr(pair, side).milliseconds for pair in pairs])
        for side in ("ours", "theirs")
    )
    seconds = float(a.sum() + b.sum()) / 1e3
    return Pair(Measurement(a, seconds), Measurement(b, seconds), ratio_of(a, b))


def row(what: str, pair: Pair, target: float | None, **about) -> dict:
    ours, theirs = (float(np.median(m.milliseconds)) for m in (pair.ours, pair.theirs))
    met = None if target is None else pair.ratio["median"] <= target
    found = {"what": what, **about, "ours_ms": ours, "theirs_ms": theirs, "ratio": pair.ratio}
    found |= {"target": target, "met": met}
    told = " ".join(str(v) for v in about.values())
    print(
        f"{what:<11}{told:<34}{ours:8.2f} over {theirs:7.2f} ms  ratio {pair.ratio['median']:.3f} "
        f"({pair.ratio['low']:.3f}-{pair.ratio['high']:.3f})"
        + ("" if target is None else f"  target {target:g}: {'met' if met else 'missed'}"),
        flush=True,
    )
    return found


def graph_rows(
    case: Case, fitted: Fit, whole: dict[tuple[str, str], Path], folder: Path, budget: Budget
) -> list[dict]:
    """The whole model over the bare backbone, and in each precision over itself in float32."""
    rows = []
    bare = bare_models(fitted, folder)
    image = read_image(fitted.photos[0])
    image = np.ascontiguousarray(resize(image, *fitted.size))[None]
    floats = np.random.default_rng(0).normal(size=(1, 3, *fitted.size)).astype(np.float32)
    for (engine, name), path in whole.items():
        about = {"model": case.name, "engine": engine, "variant": name}

        def ours(engine=engine, path=path, name=name):
            return raw_request(engine, path, name, image)

        def alone(engine=engine, name=name):
            return raw_request(engine, bare[name], name, floats)

        def in_fp32(engine=engine):
            return raw_request(engine, whole[engine, "fp32"], "fp32", image)

        pair = measure_afresh(ours, alone, budget)
        rows.append(row("graph", pair, case.targets.get((engine, name)), **about))
        if name != "fp32":
            rows.append(row("over fp32", measure_afresh(ours, in_fp32, budget), None, **about))
    return rows


def own_request(detector: Detector, batch: np.ndarray) -> Callable[[], object]:
    """A raw request to the very graph that the detector has loaded.

    Two graphs in turn would find each other's weights in the caches, and two sessions of ONNX
    Runtime that spin would fight for the cores.
    """
    engine = detector._engine
    if isinstance(engine, OnnxRuntimeEngine):
        session = engine._session
        return lambda: session.run(None, {session.get_inputs()[0].name: batch})
    request = engine._compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(batch, shared_memory=True))
    return request.infer


def pipeline_rows(model: ModelDir, budget: Budget) -> list[dict]:
    rows = []
    image = read_image(model.path / GOLDEN_IMAGE)
    frame = np.asarray(cv2.resize(image, FRAME, interpolation=cv2.INTER_CUBIC), np.uint8)
    at_size = np.ascontiguousarray(resize(frame, *image.shape[:2]))
    for engine in model.card.variants["fp32"].files:
        detector = Detector(model, engine)
        request = own_request(detector, at_size[None])
        for what, source, target in (("detector", at_size, 1.05), ("frame", frame, 1.35)):
            pair = measure_pair(lambda d=detector, s=source: d(s), request, budget)
            rows.append(row(what, pair, target, engine=engine, variant="fp32"))
    return rows


def throughput_rows(model: ModelDir, seconds: float) -> list[dict]:
    """Frames a second of the stream over benchmark_app's, each the median of several turns."""
    image = read_image(model.path / GOLDEN_IMAGE)
    frame = np.asarray(cv2.resize(image, FRAME, interpolation=cv2.INTER_CUBIC), np.uint8)
    detector = Detector(model, "openvino", throughput=True)
    budget = Budget(seconds, frames=0)

    def stream(source: np.ndarray) -> float:
        def timings(ticks):
            return (r.timings for r in detector.stream(source for _ in ticks))

        return measure_stream(timings, lambda: detector(source), budget).fps

    file = model.path / model.card.variants["fp32"].files["openvino"]
    sides = {
        "benchmark_app": lambda: benchmark_app(file, seconds),
        "stream, model size": lambda: stream(image),
        "stream, 1200 x 1000": lambda: stream(frame),
    }
    fps: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(RUNS):
        for name, measure in sides.items():
            fps[name].append(measure())
    rows = []
    for name in list(sides)[1:]:
        ratios = [a / b for a, b in zip(fps[name], fps["benchmark_app"], strict=True)]
        ratio = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        target = 0.85 if name != "stream, model size" else 0.95
        rows.append(
            {"what": "throughput", "side": name, "fps": fps[name], "ratio": ratio}
            | {"benchmark_app_fps": fps["benchmark_app"], "target": target}
            | {"met": ratio["median"] >= target}
        )
        print(
            f"throughput {name}: {statistics.median(fps[name]):.0f} frames a second, "
            f"{ratio['median']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f}) of benchmark_app's "
            f"{statistics.median(fps['benchmark_app']):.0f}  target {target:g}: "
            f"{'met' if rows[-1]['met'] else 'missed'}",
            flush=True,
        )
    return rows


def benchmark_app(file: Path, seconds: float) -> float:
    app = Path(sys.executable).parent / "benchmark_app"
    said = subprocess.run(
        f"{app} -m {file} -d CPU -hint throughput -infer_precision f32 -t {round(seconds)}".split(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"Throughput:\s+([\d.]+) FPS", said)
    if found is None:
        raise RuntimeError(f"benchmark_app reports no throughput: {said[-300:]}")
    return float(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="for each pair")
    parts = [*(case.name for case in CASES), PIPELINE]
    parser.add_argument(
        "--only", nargs="+", choices=parts, default=parts, help="the rest stays as it was"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/limits.json"))
    args = parser.parse_args()
    budget = Budget(args.seconds, frames=200, cap=4 * args.seconds)
    report = {"environment": environment(), "frame": FRAME, "sizes": {}, "rows": []}
    if set(args.only) != set(parts):
        old = json.loads(args.json.read_text())
        report["sizes"] = old["sizes"]
        report["rows"] = [row for row in old["rows"] if row["part"] not in args.only]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        lay_out(root / "cells")
        for case in CASES:
            if case.name not in args.only:
                continue
            fitted = fit(root / "cells", case.options)
            folder = root / case.name
            folder.mkdir()
            whole = whole_models(fitted, folder)
            rows = graph_rows(case, fitted, whole, folder, budget)
            report["rows"] += [row | {"part": case.name} for row in rows]
            files = {name: path for (engine, name), path in whole.items() if engine != "openvino"}
            sizes = {name: path.stat().st_size / 2**20 for name, path in files.items()}
            report["sizes"][case.name] = sizes
            print(f"{case.name}: MiB of ONNX {sizes}", flush=True)
        if PIPELINE in args.only:
            model = export(root / "cells", root / "model", CASES[0].options)
            rows = pipeline_rows(model, budget) + throughput_rows(model, args.seconds)
            report["rows"] += [row | {"part": PIPELINE} for row in rows]
    args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
