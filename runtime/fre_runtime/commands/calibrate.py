"""fre-calibrate: new thresholds from good photos of this camera, without a refit."""

import argparse
import dataclasses
import sys
from pathlib import Path

from fre_runtime.card import Card
from fre_runtime.commands.common import (
    add_max_pixels_argument,
    add_region_argument,
    fraction,
    out,
    positive_int,
    regions,
    write_json,
)
from fre_runtime.engines.loading import ENGINES
from fre_runtime.model_dir import open_model_dir
from fre_runtime.recalibration import CalibrationOptions, Recalibration, recalibrate

STRONG, WEAK = 1.5, 2.0
"""Factors by which a threshold rises or falls that are worth a warning."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of fre-calibrate."""
    parser = argparse.ArgumentParser(
        prog="fre-calibrate",
        description="Find new thresholds from photos of good parts as this camera takes them, and "
        "write the model with them to another directory. The photos must not be those that the "
        "model was fitted on. Needs no PyTorch; every variant that runs here is calibrated.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory that fre-export wrote")
    parser.add_argument(
        "images",
        type=Path,
        metavar="IMAGES",
        help="folder of photos of good parts, or an MVTec-layout category (train/good is used)",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="model directory to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a model directory")
    parser.add_argument(
        "--fpr", type=fraction, metavar="F", help="false-reject rate (default: the model's)"
    )
    parser.add_argument(
        "--groups",
        default="auto",
        metavar="auto|none|FILE",
        help="photos of one scene count once: those that look alike, none, or as a CSV file with "
        "the columns file,group says",
    )
    add_region_argument(parser)
    parser.add_argument("--engine", choices=["auto", *ENGINES], default="auto")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="CPU threads")
    add_max_pixels_argument(parser)
    parser.add_argument("--json", metavar="FILE", help="write the card as JSON; - for stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress, no warnings")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run fre-calibrate."""
    old = open_model_dir(args.model)
    options = CalibrationOptions(
        fpr=args.fpr,
        groups=args.groups,
        regions=regions(args),
        engine=args.engine,
        threads=args.threads,
        max_pixels=args.max_pixels,
        overwrite=args.overwrite,
        quiet=args.quiet,
    )
    done = recalibrate(old, args.images, args.out, options)
    if not args.quiet:
        for line in _warnings(old.card, done):
            sys.stderr.write(f"{line}\n")
    if args.json:
        write_json(args.json, dataclasses.asdict(done.model.card))
    if args.json != "-":
        for line in _summary(old.card, done):
            out(line)
    return 0


def _warnings(old: Card, done: Recalibration) -> list[str]:
    lines = [f"left out: {path}: {reason}" for path, reason in done.skipped.items()]
    lines += [f"variant {name} is left out: {why}" for name, why in done.left_out.items()]
    for name, variant in done.model.card.variants.items():
        factor = variant.calibration.image.value / old.variants[name].calibration.image.value
        if factor <= 1 / WEAK:
            lines.append(
                f"variant {name}: the image threshold falls to {factor:.2g} times what it was. Was "
                "the model fitted on these photos? Then good parts that it has not seen will be "
                "rejected: calibrate on photos that are new to it"
            )
        if factor >= STRONG:
            lines.append(
                f"variant {name}: the image threshold rises to {factor:.2g} times what it was: a "
                "defect must be that much stronger to be found. A model exported from photos of "
                "this camera will find more"
            )
    return lines


def _summary(old: Card, done: Recalibration) -> list[str]:
    variants = done.model.card.variants
    one = next(iter(variants.values())).calibration
    lines = [
        f"{done.model.path}: written and verified",
        f"  calibrated on {one.photos} photos of {one.scenes} scenes for a false-reject rate of "
        f"{one.fpr_supported:.3g}",
    ]
    for name, variant in variants.items():
        new, before = variant.calibration, old.variants[name].calibration
        lines.append(
            f"  {name:<6} image threshold {before.image.value:.4g} -> {new.image.value:.4g}, pixel "
            f"{before.pixel.value:.4g} -> {new.pixel.value:.4g}; the old ones reject "
            f"{done.rejected_before[name]:.1%} of these photos"
        )
    return lines
