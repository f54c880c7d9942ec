"""fre-eval: image and pixel metrics of a model on a labelled data set."""

import argparse
import dataclasses
from pathlib import Path

from fre_runtime.commands.common import (
    add_max_pixels_argument,
    add_model_arguments,
    out,
    write_json,
)
from fre_runtime.detector import Detector
from fre_runtime.errors import ImageError
from fre_runtime.evaluation import Evaluation, evaluate
from fre_runtime.metrics import PixelMetrics
from fre_runtime.report.evaluated import REPLICATES, evaluation_page
from fre_runtime.report.page import check_target, require_libraries, write_page


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of fre-eval."""
    parser = argparse.ArgumentParser(
        prog="fre-eval",
        description="Score a data set in MVTec layout: image AUROC, average precision, largest F1; "
        "false-reject and detection rate at the calibrated threshold; where masks exist, pixel "
        "AUROC and AUPRO up to 30% false positives.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "dataset",
        type=Path,
        metavar="DATASET",
        help="folder with test/good, test/<defect> and, optionally, ground_truth/<defect>",
    )
    add_max_pixels_argument(parser)
    parser.add_argument("--json", metavar="FILE", help="write all figures and scores; - for stdout")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.html",
        help="write one page with curves, galleries and the model card (needs the extra 'report')",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run fre-eval."""
    if args.report:  # found before the work, not after
        require_libraries()
        check_target(args.report)
    detector = Detector(
        args.model, args.engine, args.variant, args.threads, max_pixels=args.max_pixels
    )
    pixels = PixelMetrics(replicates=REPLICATES if args.report else 0)
    evaluation = evaluate(detector, args.dataset, pixels=pixels, quiet=args.quiet)
    if args.report:
        page = evaluation_page(detector, args.dataset, evaluation, pixels, quiet=args.quiet)
        write_page(args.report, page)
    if args.json:
        write_json(args.json, dataclasses.asdict(evaluation))
    if args.json != "-":
        for line in describe(evaluation):
            out(line)
        if args.report:
            out(f"  report: {args.report} ({args.report.stat().st_size / 2**20:.1f} MiB)")
    if evaluation.invalid:
        raise ImageError(
            f"{len(evaluation.invalid)} images could not be scored and enter no figure; the first: "
            + next(iter(evaluation.invalid.values()))
        )
    return 0


def describe(e: Evaluation) -> list[str]:
    """The figures as lines of text."""
    lines = [f"{e.n_good} good and {e.n_defective} defective photos, {e.engine}, {e.variant}"]
    for label, value in (
        ("image AUROC", e.image_auroc),
        ("image average precision", e.image_ap),
        ("image F1, largest", e.image_f1_max),
        ("pixel AUROC", e.pixel_auroc),
        ("AUPRO (30%)", e.aupro),
        ("false-reject rate at the threshold", e.false_reject_rate),
        ("detection rate at the threshold", e.detection_rate),
    ):
        if value is not None:
            lines.append(f"  {label:<36}{value:.4f}")
    if len(e.detection_rate_by_kind) > 1:
        lines += [f"    {kind:<34}{rate:.4f}" for kind, rate in e.detection_rate_by_kind.items()]
    if e.empty_masks:
        lines.append(
            f"  {len(e.empty_masks)} masks mark nothing and were left out of pixel figures"
        )
    lines += [f"  not scored: {reason}" for reason in e.invalid.values()]
    return lines
