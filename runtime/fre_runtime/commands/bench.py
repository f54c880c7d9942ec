"""fre-bench: latency and throughput of a model on this machine."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fre_runtime.commands.common import (
    add_model_arguments,
    out,
    positive_float,
    write_json,
)
from fre_runtime.detector import Detector
from fre_runtime.engines.base import EngineInfo
from fre_runtime.engines.loading import installed_engines, open_engine, resolve_engine
from fre_runtime.environment import environment, resident_mib
from fre_runtime.errors import UsageError
from fre_runtime.image import MAX_PIXELS, Image, encode_image, read_image
from fre_runtime.latency import (
    Measurement,
    measure_latency,
    measure_pair,
    measure_throughput,
)
from fre_runtime.model_dir import GOLDEN_IMAGE, ModelDir, open_model_dir
from fre_runtime.preprocess import prepare

SCOPES = ("graph", "frame", "file")


@dataclass(frozen=True)
class Job:
    """One thing to time: a loaded model and what one call of it does."""

    info: EngineInfo
    call: Callable[[], object]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of fre-bench."""
    parser = argparse.ArgumentParser(
        prog="fre-bench",
        description="Measure one model. Scopes: graph = the inference call alone, on a prepared "
        "tensor; frame = Detector on a decoded camera frame, resize included; file = Detector on "
        "an encoded JPEG, decoding included.",
    )
    add_model_arguments(parser)
    parser.add_argument("--scenario", choices=["latency", "throughput"], default="latency")
    parser.add_argument("--scope", choices=[*SCOPES, "all"], default="all")
    parser.add_argument(
        "--duration",
        type=positive_float,
        default=5.0,
        metavar="S",
        help="seconds a row (default 5)",
    )
    parser.add_argument("--image", type=Path, help="photo to time (default: the golden image)")
    parser.add_argument(
        "--frame-size",
        type=frame_size,
        default=(1200, 1000),
        metavar="WxH",
        help="camera frame that the photo is resized to for scopes frame and file "
        "(default 1200x1000); native = the photo's own size",
    )
    parser.add_argument("--vs", type=Path, metavar="OTHER_MODEL", help="alternate with this model")
    parser.add_argument("--json", metavar="FILE", help="write all figures; - for stdout")
    return parser.parse_args(argv)


def frame_size(text: str) -> tuple[int, int] | None:
    """Parse WIDTHxHEIGHT, or ``native``."""
    if text == "native":
        return None
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT or native, got {text}") from None
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise argparse.ArgumentTypeError(f"must hold 1..{MAX_PIXELS} pixels, got {text}")
    return width, height


def run(args: argparse.Namespace) -> int:
    """Run fre-bench."""
    if args.vs and args.scenario == "throughput":
        raise UsageError("--vs compares latency; leave --scenario throughput out")
    model = open_model_dir(args.model)
    other = open_model_dir(args.vs) if args.vs else None
    model.variant(args.variant)
    first = resolve_engine(args.engine)
    engines = installed_engines() if args.engine == "auto" else [first]
    report: dict[str, Any] = {"environment": environment(), "results": []}
    if args.json != "-":
        out(_machine(report["environment"]))
        out(_HEADER)
    for engine in engines:
        for scope in SCOPES if args.scope == "all" else [args.scope]:
            for row in _rows(args, model, other, engine, scope):
                report["results"].append(row)
                if args.json != "-":
                    out(_line(row))
    if args.json:
        write_json(args.json, report)
    return 0


def _rows(
    args: argparse.Namespace, model: ModelDir, other: ModelDir | None, engine: str, scope: str
) -> list[dict[str, Any]]:
    job = _job(args, model, engine, scope)
    if args.scenario == "throughput":
        measured = measure_throughput(job.call, args.duration, _callers(job.info, scope))
        return [_row(args, scope, job.info, measured)]
    if other is None:
        return [_row(args, scope, job.info, measure_latency(job.call, args.duration))]
    other_job = _job(args, other, engine, scope)
    pair = measure_pair(job.call, other_job.call, args.duration)
    first = _row(args, scope, job.info, pair.ours)
    first |= {"model": str(args.model), "ratio": pair.ratio}
    second = _row(args, scope, other_job.info, pair.theirs) | {"model": str(args.vs)}
    return [first, second]


def _callers(info: EngineInfo, scope: str) -> int:
    """One more caller than requests where it has other work to do meanwhile."""
    return info.parallel + (scope != "graph")


def _job(args: argparse.Namespace, model: ModelDir, engine: str, scope: str) -> Job:
    throughput = args.scenario == "throughput"
    image = read_image(args.image or model.path / GOLDEN_IMAGE)
    if scope == "graph":
        loaded = open_engine(model, engine, args.variant, args.threads, throughput=throughput)
        tensor = prepare(image, model.card.graph)
        return Job(loaded.info, lambda: loaded.run(tensor))
    detector = Detector(model, engine, args.variant, args.threads, throughput=throughput)
    frame = _camera_frame(image, args.frame_size)
    if scope == "frame":
        return Job(detector.info, lambda: detector(frame))
    data = encode_image(frame, ".jpg")
    return Job(detector.info, lambda: detector(data))


def _camera_frame(image: Image, size: tuple[int, int] | None) -> Image:
    if size is None:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _row(
    args: argparse.Namespace, scope: str, info: EngineInfo, measured: Measurement
) -> dict[str, Any]:
    return {
        "engine": info.engine,
        "engine_version": info.version,
        "variant": args.variant,
        "precision": info.precision,
        "scope": scope,
        "scenario": args.scenario,
        "threads": info.threads,
        "parallel": info.parallel,
        "fps": measured.fps,
        "latency_ms": measured.latency(),
        "frames": len(measured.milliseconds),
        "rss_mib": resident_mib(),
    }


_HEADER = "engine       variant  scope  scenario    threads     fps   median    p95    p99  (ms)"


def _line(row: dict[str, Any]) -> str:
    latency = row["latency_ms"]
    line = (
        f"{row['engine']:<13}{row['variant']:<9}{row['scope']:<7}{row['scenario']:<12}"
        f"{row['threads']:>7}{row['fps']:>8.1f}{latency['median']:>9.2f}"
        f"{latency['p95']:>7.2f}{latency['p99']:>7.2f}"
    )
    if "ratio" in row:
        ratio = row["ratio"]
        line += f"  time ratio {ratio['median']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})"
    return line


def _machine(env: dict[str, Any]) -> str:
    quota = "none" if env["cpu_quota"] is None else f"{env['cpu_quota']:g}"
    return (
        f"{env['cpu']}, {env['cpus_available']} CPUs, quota {quota}, "
        f"{' '.join(env['isa'])}; {env['date']}"
    )
