"""fre-export: from a folder of good photos to one verified model directory."""

import argparse
import contextlib
import gc
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

from fre_edge.options import METHODS, FitOptions
from fre_runtime.card import Card, Layer, Variant
from fre_runtime.commands.common import (
    add_max_pixels_argument,
    add_region_argument,
    out,
    positive_int,
    regions,
    write_json,
)
from fre_runtime.commands.deploy import describe
from fre_runtime.errors import MissingDependencyError, UsageError
from fre_runtime.geometry import View
from fre_runtime.model_dir import REPORT, ModelDir
from fre_runtime.repository import check_repository, lay_out, servable_name
from fre_runtime.threads import default_threads

DEFAULTS = FitOptions()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of fre-export."""
    parser = argparse.ArgumentParser(
        prog="fre-export",
        description="Learn what good parts look like, fold the model into one ONNX graph and its "
        "OpenVINO IR, prove that PyTorch and both engines agree, write the model directory.",
    )
    parser.add_argument(
        "images",
        type=Path,
        metavar="IMAGES",
        nargs="?",
        help="folder of photos of good parts, or an MVTec-layout category (train/good is used); "
        "may be left out where --update merges models",
    )
    parser.add_argument(
        "--update",
        type=Path,
        nargs="+",
        default=[],
        metavar="MODEL",
        help="go on from these model directories, without their photos: add those of IMAGES to "
        "them, merge several; what is not given is as the first of them has it",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="model directory to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model directory")
    parser.add_argument(
        "--serving",
        type=Path,
        metavar="DIR",
        help="also lay the model out there for OpenVINO Model Server and Triton, as the next "
        "version of its name; fre-deploy does that later",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--backbone",
        metavar="[LIBRARY/]NAME",
        help=f"of torchvision or timm, such as timm/vit_small_patch16_224; default: "
        f"{DEFAULTS.backbone}",
    )
    model.add_argument("--layers", type=_names, metavar="L[,L]", help="graph nodes to tap")
    model.add_argument(
        "--weights",
        metavar="auto|FILE|random",
        help="auto: embedded, or the library's; FILE: a state dict; random: for speed work only",
    )
    model.add_argument(
        "--size",
        type=_size,
        metavar="N|HxW",
        help="model input in pixels (default: the backbone's own, mostly 256)",
    )
    model.add_argument("--pool", type=positive_int, metavar="N", help="average-pooling window")
    model.add_argument(
        "--pool-overlap",
        type=_names,
        metavar="L[,L]",
        help="layers whose pooling windows reach further and overlap; '' for none",
    )
    model.add_argument(
        "--max-components",
        type=_numbers,
        metavar="L=K[,L=K]",
        help="layers whose whole subspace has no more components than this, whatever --variance "
        "asks for; '' for none",
    )
    rank = model.add_mutually_exclusive_group()
    rank.add_argument(
        "--variance",
        type=float,
        metavar="F",
        help=f"variance kept, default {DEFAULTS.variance}",
    )
    rank.add_argument("--components", type=positive_int, metavar="K", help="components kept")
    model.add_argument("--score", metavar="p3|p2|sum|max", help=f"default: {DEFAULTS.score}")
    model.add_argument(
        "--relative",
        action=argparse.BooleanOptionalAction,
        help="divide errors by what is expected of a good photo of the same contrast (default); "
        "--no-relative: the paper's plain errors",
    )
    model.add_argument("--seed", type=int, help=f"default: {DEFAULTS.seed}")
    fitting = parser.add_argument_group("fitting")
    fitting.add_argument(
        "--subspace",
        metavar="whole|local|regions[:R]",
        help="what a subspace is fitted to: whole (default), local: cells of the grid, one "
        "subspace for all (textures, views that are not registered), regions: R x R windows",
    )
    fitting.add_argument(
        "--method",
        metavar="|".join(METHODS),
        help="how the subspace is found; default: auto, by number and size of the features and "
        "free memory",
    )
    fitting.add_argument(
        "--warm-start",
        action="store_true",
        default=None,
        help="tied-ae and ae begin at the PCA instead of at random",
    )
    fitting.add_argument(
        "--scratch",
        metavar="DIR",
        help="keep features on disk there, and what a fit that was stopped goes on from when the "
        "same command is given again; emptied at the end",
    )
    seen = parser.add_argument_group("what is looked at")
    add_region_argument(seen)
    seen.add_argument(
        "--tile",
        type=_size,
        metavar="N|HxW",
        help="cut the photos into tiles of so many pixels; one model is learned for all of them, "
        "and the worst tile is the photo's score",
    )
    seen.add_argument(
        "--overlap",
        type=float,
        metavar="F",
        help="share of a tile that its neighbour covers too (default 0)",
    )
    seen.add_argument(
        "--keep-aspect",
        action="store_true",
        default=None,
        help="pad to the model's shape with grey instead of stretching",
    )
    add_max_pixels_argument(seen)
    parser.set_defaults(max_pixels=None)  # as the model to update has it
    thresholds = parser.add_argument_group("thresholds")
    thresholds.add_argument(
        "--groups",
        metavar="auto|none|FILE",
        help="keep near-copies in one fold: found by similarity, not at all, or by a CSV file "
        "with the columns file,group",
    )
    thresholds.add_argument(
        "--fpr",
        type=float,
        metavar="F",
        help=f"false-reject rate, default {DEFAULTS.fpr}",
    )
    graph = parser.add_argument_group("graph")
    graph.add_argument("--io", default="uint8", metavar="uint8|float", help="default: %(default)s")
    graph.add_argument(
        "--map-size", metavar="native|input", help="default: native for uint8, input for float"
    )
    graph.add_argument(
        "--precision",
        default="fp32",
        metavar="auto|P[,P]",
        help="variants besides fp32: bf16, int8 (needs the extra 'quantize'), each with thresholds "
        "of its own and left out where it is worse than fp32; auto: those that are faster here",
    )
    parser.add_argument(
        "--strict", action="store_true", default=None, help="refuse files that cannot be used"
    )
    parser.add_argument("--json", metavar="FILE", help="write the card as JSON; - for stdout")
    parser.add_argument("--quiet", action="store_true", help="only warnings and the summary")
    return parser.parse_args(argv)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> dict[str, int]:
    pairs = [name.partition("=") for name in _names(text)]
    numbers = {name: int(number) for name, _, number in pairs if name and number.isdecimal()}
    if len(numbers) < len(pairs):
        raise argparse.ArgumentTypeError(
            f"expected LAYER=NUMBER[,LAYER=NUMBER], each layer once, got {text}"
        )
    return numbers


def _size(text: str) -> tuple[int, int]:
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"expected N or HEIGHTxWIDTH, got {text}")
    return sides[0], sides[-1]


def run(args: argparse.Namespace) -> int:
    """Run fre-export."""
    start = time.monotonic()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    for name in ("fre_edge", "fre_export"):
        logging.getLogger(name).setLevel(logging.WARNING if args.quiet else logging.INFO)
    if os.environ.get("RANK", "0") != "0":  # torch's own lines about a team that breaks up
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Imported here so that --help and misuse answer at once.
    try:
        with _loading():
            import torch

            from fre_edge.distributed import contribute
            from fre_edge.team import join
            from fre_export.fold import ExportOptions, export
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; run: pip install 'fre-edge[train]'"
        ) from error

    torch.set_num_threads(default_threads())
    options = ExportOptions(args.io, args.map_size, args.precision, args.overwrite)
    with join() as team:
        if team.rank:  # rank 0 speaks for all
            logging.disable()
        if args.images is None and not args.update:
            raise UsageError(
                "IMAGES is missing: give a folder of photos of good parts, or --update"
            )
        fit_options = _fit_options(args)
        if team.rank:
            contribute(args.images, fit_options, team)
            return 0
        if args.serving:
            if args.serving.absolute().is_relative_to(args.out.absolute()):
                raise UsageError(
                    f"--serving {args.serving}: lies in {args.out}, which must hold the model's "
                    "own files only; choose another directory"
                )
            check_repository(args.serving, servable_name(args.out.absolute().name))
        model = export(args.images, args.out, fit_options, options, args.update, team)
        served = lay_out(model, args.serving) if args.serving else None
    if args.json:
        write_json(args.json, asdict(model.card))
    if args.json != "-":
        for line in _summary(model, time.monotonic() - start):
            out(line)
        for line in describe(served) if served else []:
            out(line)
    return 0


@contextlib.contextmanager
def _loading() -> Iterator[None]:
    """Search for no garbage in what modules are made of, now or later: a second and a half less."""
    if not gc.isenabled() or "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _fit_options(args: argparse.Namespace) -> FitOptions:
    """What was given; all else by default, or as the first model to update has it."""
    from fre_edge.saved import Saved

    base = Saved.read(args.update[0]).options if args.update else DEFAULTS
    given = {field.name: getattr(args, field.name, None) for field in fields(FitOptions)}
    chosen = {name: value for name, value in given.items() if value is not None}
    if "layers" in chosen:  # what went with those of the model does not go with others
        base = replace(base, pool_overlap=None)
    if chosen.keys() & {"layers", "subspace", "components"}:
        base = replace(base, max_components=None)
    if "max_components" in chosen:  # a limit beside the variance
        base = replace(base, components=None)
    if "method" in chosen:
        base = replace(base, warm_start=False)
    chosen["view"] = _view(args, base.view)
    if "variance" in chosen:
        chosen["components"] = None
    return replace(base, **chosen)


def _view(args: argparse.Namespace, base: View) -> View:
    """``base``, but for what was given."""
    polygons = regions(args)
    if polygons is not None:
        base = base.with_regions(polygons)
    given = {
        "tile": None if args.tile is None else list(args.tile),
        "overlap": args.overlap,
        "aspect": "keep" if args.keep_aspect else None,
    }
    return replace(base, **{name: value for name, value in given.items() if value is not None})


def _summary(model: ModelDir, seconds: float) -> list[str]:
    card = model.card
    fp32 = card.variants["fp32"]
    skipped = len(card.training.skipped)
    best = recommended(card)
    return [
        f"{model.path}: written and verified in {seconds:.1f} s",
        f"  fitted      {card.training.images} photos of {card.training.scenes} scenes by "
        + card.training.method
        + (f", going on from {', '.join(card.training.updated)}" if card.training.updated else "")
        + (f", {skipped} files left out" if skipped else ""),
        "  subspace    "
        + ", ".join(
            f"{layer.name}: k={layer.components} of D={_dimension(card, layer)}"
            f" ({layer.variance:.1%} of the variance)"
            for layer in card.layers
        ),
        f"  thresholds  image {fp32.calibration.image.value:.4g}, pixel "
        f"{fp32.calibration.pixel.value:.4g} for a false-reject rate of "
        f"{fp32.calibration.fpr_supported:.3g}",
        *(line for name, one in card.variants.items() for line in _variant_lines(model, name, one)),
        *([f"  report      {model.path / REPORT}"] if (model.path / REPORT).is_file() else []),
        "next:",
        f"  fre-run {model.path} PHOTO_OR_FOLDER --save pictures"
        + ("" if best == "fp32" else f" --variant {best}"),
        f"  fre-bench {model.path}",
        f"  fre-info {model.path}",
    ]


def _dimension(card: Card, layer: Layer) -> int:
    """Length of a vector; with regions, of all of a photo's together."""
    cells = 1 if card.training.subspace == "local" else layer.height * layer.width
    return layer.channels * cells


def _variant_lines(model: ModelDir, name: str, variant: Variant) -> list[str]:
    parity, accuracy = variant.parity, variant.accuracy
    sizes = ", ".join(
        f"{file} {(model.path / file).with_suffix(suffix).stat().st_size / 2**20:.1f} MiB"
        for file, suffix in (
            (f, ".bin" if f.endswith(".xml") else ".onnx") for f in variant.files.values()
        )
    )
    lines = [
        f"  {name:<11} parity on {parity.images} {parity.source}: "
        + ", ".join(f"{engine} {error:.1e}" for engine, error in parity.score_error.items())
        + f", every label the same; {sizes}"
    ]
    if accuracy is not None:
        found = f"held-out scores rank as fp32's to {accuracy.rank_correlation:.3f}"
        if accuracy.image_auroc is not None and accuracy.detection_rate is not None:
            found += (
                f"; on {accuracy.images} test photos AUROC {accuracy.image_auroc:.4f} against "
                f"{accuracy.image_auroc_fp32:.4f}, {accuracy.detection_rate:.1%} of the defects "
                f"found against {accuracy.detection_rate_fp32:.1%}"
            )
        times = ", ".join(f"{engine} {ratio:.2f}" for engine, ratio in variant.time_ratio.items())
        lines.append(f"              {found}; time over fp32's here: {times}")
    return lines


def recommended(card: Card) -> str:
    """Name of the variant that takes the least time on the exporting machine."""
    times = {name: min(one.time_ratio.values(), default=1.0) for name, one in card.variants.items()}
    return min(times, key=lambda name: times[name])
