"""fre-bench: latency and throughput of a model on this machine."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fre_runtime.commands.common import (
    add_max_pixels_argument,
    add_model_arguments,
    fraction,
    out,
    positive_float,
    write_json,
)
from fre_runtime.engines.loading import (
    ENGINES,
    check_threads,
    installed_engines,
    resolve_engine,
)
from fre_runtime.environment import environment
from fre_runtime.errors import ImageError, UsageError
from fre_runtime.geometry import View
from fre_runtime.harness.confidence import CONFIDENCE, MARGIN, QUANTILE, minimum_frames
from fre_runtime.harness.gate import MIN_AUROC, check_quality, describe_quality
from fre_runtime.harness.noise import LIMITS, warning
from fre_runtime.harness.plot import SUFFIXES, plot_threads, require_matplotlib
from fre_runtime.harness.rows import HEADER, MARK, describe_machine, to_line, to_row
from fre_runtime.harness.sides import SCOPES, Job, Photo, Side, measure, open_job
from fre_runtime.image import MAX_PIXELS, Image, read_image
from fre_runtime.latency import Budget, measure_pair
from fre_runtime.model_dir import GOLDEN_IMAGE, open_model_dir
from fre_runtime.progress import Status
from fre_runtime.threads import default_threads

CAMERA = (1200, 1000)
"""Width and height of a camera frame where nothing else is known, pixels."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of fre-bench."""
    parser = argparse.ArgumentParser(
        prog="fre-bench",
        description="Measure one model. Scopes: graph = the inference call alone, on a prepared "
        "tensor; frame = Detector on a decoded camera frame, resize included; file = Detector on "
        "an encoded JPEG, decoding included.",
    )
    add_model_arguments(parser, several_threads=True)
    parser.add_argument(
        "--sweep", action="store_true", help="measure 1, 2, ... up to the default threads"
    )
    parser.add_argument("--scenario", choices=["latency", "throughput"], default="latency")
    parser.add_argument("--scope", choices=[*SCOPES, "all"], default="all")
    _add_budget(parser)
    parser.add_argument("--image", type=Path, help="photo to time (default: the golden image)")
    parser.add_argument(
        "--frame-size",
        type=frame_size,
        metavar="WxH",
        help="camera frame that the photo is resized to for scopes frame and file (default "
        "1200x1000, or what MODEL's regions are drawn on); native = the photo's own size",
    )
    versus = parser.add_argument_group(
        "comparison", "Alternate with another model, engine or variant, and give the time ratio."
    )
    versus.add_argument("--vs", type=Path, metavar="OTHER_MODEL")
    versus.add_argument("--vs-engine", choices=list(ENGINES))
    versus.add_argument("--vs-variant", metavar="VARIANT")
    gate = parser.add_argument_group(
        "quality gate", "Score a labelled data set first; a model that fails is not measured."
    )
    gate.add_argument("--gate", type=Path, metavar="DATASET", help="data set in MVTec layout")
    gate.add_argument(
        "--min-auroc",
        type=fraction,
        metavar="F",
        help=f"least image AUROC (default {MIN_AUROC:g}); variants are held against fp32, too",
    )
    add_max_pixels_argument(parser)
    parser.add_argument("--json", metavar="FILE", help="write all figures; - for stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument(
        "--plot",
        type=plot_file,
        metavar="FILE",
        help="draw frames a second and median latency against threads, as .svg or .png",
    )
    return parser.parse_args(argv)


def _add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--duration",
        type=positive_float,
        default=5.0,
        metavar="S",
        help="least seconds a row (default 5)",
    )
    parser.add_argument(
        "--margin",
        type=fraction,
        default=MARGIN,
        metavar="F",
        help=f"measure on until the {QUANTILE:.0%} percentile is known to within this rank with "
        f"{CONFIDENCE:.0%} confidence (default {MARGIN:g}: {minimum_frames()} frames; MLPerf takes "
        f"0.005: {minimum_frames(margin=0.005)})".replace("%", "%%"),
    )
    parser.add_argument(
        "--max-seconds",
        type=positive_float,
        default=60.0,
        metavar="S",
        help="give up on --margin after so long a row (default 60)",
    )


def frame_size(text: str) -> tuple[int, int] | str:
    """Parse WIDTHxHEIGHT, or ``native``."""
    if text == "native":
        return text
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT or native, got {text}") from None
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise argparse.ArgumentTypeError(f"must hold 1..{MAX_PIXELS} pixels, got {text}")
    return width, height


def plot_file(text: str) -> Path:
    """Parse the name of a plot."""
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise argparse.ArgumentTypeError(f"must end in {' or '.join(SUFFIXES)}, got {text}")
    return path


def run(args: argparse.Namespace) -> int:
    """Run fre-bench."""
    pairs = _pairs(args)
    if args.plot:
        require_matplotlib()
    image = read_image(args.image or pairs[0][0].model.path / GOLDEN_IMAGE, args.max_pixels)
    photo = Photo(image, _camera_frame(image, args.frame_size, pairs[0][0].model.card.view))
    if args.scope != "graph":
        _check_frame(pairs, photo.frame)
    report: dict[str, Any] = {"environment": environment()}
    if args.gate:
        report["quality"] = _quality(args, pairs)
    people = args.json != "-"
    if people:
        for figures in report.get("quality", []):
            out(f"quality gate: {describe_quality(figures)}")
        out(describe_machine(report["environment"], args.scenario))
        out(HEADER)
    report["results"] = []
    for row in _rows(args, pairs, photo):
        report["results"].append(row)
        if people:
            out(to_line(row))
            sys.stdout.flush()
    noisy = sorted({name for row in report["results"] for name in row["noise"]["exceeded"]})
    report["noise"] = {"limits": LIMITS, "exceeded": noisy}
    if people and not all(row["samples"]["reached"] for row in report["results"]):
        out(f"{MARK} fewer frames than --margin {args.margin:g} needs; see --max-seconds")
    if args.json:
        write_json(args.json, report)
    if args.plot:
        plot_threads(report["results"], args.plot)
    if line := warning([row["noise"] for row in report["results"]], noisy):
        sys.stderr.write(line + "\n")
    return 0


def _pairs(args: argparse.Namespace) -> list[tuple[Side, Side | None]]:
    """What to measure, each with what to compare it with; one for each engine and thread count.

    Raises
    ------
    UsageError
        For options that contradict each other, before anything is loaded.
    """
    compares = args.vs or args.vs_engine or args.vs_variant
    throughput = args.scenario == "throughput"
    if compares and throughput:
        raise UsageError("--vs compares latency; leave --scenario throughput out")
    if args.sweep and args.threads:
        raise UsageError("--sweep chooses the threads; leave --threads out")
    if args.min_auroc and not args.gate:
        raise UsageError("--min-auroc needs --gate DATASET to measure it on")
    threads = range(1, default_threads() + 1) if args.sweep else args.threads or [None]
    for count in threads:
        check_threads(count)
    model = open_model_dir(args.model)
    other = open_model_dir(args.vs) if args.vs else model
    model.variant(args.variant)
    other.variant(args.vs_variant or args.variant)
    pairs: list[tuple[Side, Side | None]] = []
    for engine in _engines(args.engine, args.vs_engine):
        for count in threads:
            ours = Side(args.model, model, engine, args.variant, count, throughput, args.max_pixels)
            theirs = Side(
                args.vs or args.model,
                other,
                args.vs_engine or engine,
                args.vs_variant or args.variant,
                count,
                throughput,
                args.max_pixels,
            )
            pairs.append((ours, theirs if compares else None))
    return pairs


def _engines(asked: str, versus: str | None) -> list[str]:
    """All that are installed where none was asked for, except the one to compare with."""
    first = resolve_engine(asked)
    if asked != "auto":
        return [first]
    return [engine for engine in installed_engines() if engine != versus] or [first]


def _quality(
    args: argparse.Namespace, pairs: list[tuple[Side, Side | None]]
) -> list[dict[str, Any]]:
    """Figures of every build that will be timed; its thread count changes none of them."""
    sides = (dataclasses.replace(s, threads=None) for pair in pairs for s in pair if s is not None)
    builds = {(side.name, side.engine, side.variant): side for side in sides}
    least = args.min_auroc or MIN_AUROC
    return [check_quality(s, args.gate, least, quiet=args.quiet) for s in builds.values()]


def _rows(
    args: argparse.Namespace, pairs: list[tuple[Side, Side | None]], photo: Photo
) -> Iterator[dict[str, Any]]:
    """Measure one after the other: two rows where there is something to compare with."""
    budget = Budget(args.duration, minimum_frames(margin=args.margin), args.max_seconds)
    scopes = SCOPES if args.scope == "all" else (args.scope,)
    status = Status(quiet=args.quiet)
    todo = [(ours, theirs, scope) for ours, theirs in pairs for scope in scopes]
    try:
        for number, (ours, theirs, scope) in enumerate(todo, 1):
            job = open_job(ours, scope, photo)
            status.show(
                f"measuring {number} of {len(todo)}: {ours.engine} {ours.variant}, {scope}, "
                f"threads: {job.info.threads}"
            )
            rows = _measure(job, open_job(theirs, scope, photo) if theirs else None, budget)
            status.clear()
            yield from rows
    finally:  # what comes next on stderr may be an error
        status.clear()


def _measure(job: Job, other: Job | None, budget: Budget) -> list[dict[str, Any]]:
    if other is None:
        return [to_row(job, measure(job, budget), budget)]
    pair = measure_pair(job.call, other.call, budget)
    ours = {"model": str(job.side.name), "ratio": pair.ratio}
    theirs = {"model": str(other.side.name)}
    return [to_row(job, pair.ours, budget) | ours, to_row(other, pair.theirs, budget) | theirs]


def _check_frame(pairs: list[tuple[Side, Side | None]], frame: Image) -> None:
    """Find out before the work that the regions and tiles of a model do not fit into the frame."""
    for model in {id(s.model): s.model for pair in pairs for s in pair if s is not None}.values():
        try:
            model.card.view.plan(frame.shape[0], frame.shape[1])
        except ImageError as error:
            raise UsageError(f"{model.path}: {error}; see --image and --frame-size") from error


def _camera_frame(image: Image, size: tuple[int, int] | str | None, view: View) -> Image:
    if isinstance(size, str):  # native
        return image
    if size is None:
        size = (view.size[1], view.size[0]) if view.size else CAMERA
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
