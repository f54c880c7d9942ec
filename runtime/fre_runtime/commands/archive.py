"""The side of fre-run that scores an archive on a Ray cluster."""

import argparse

from fre_runtime.commands.common import out
from fre_runtime.errors import UsageError


def add_archive_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a cluster takes."""
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="score on a Ray cluster: local (default) starts one on this machine, auto or "
        "HOST:PORT joins one; --json is then a folder, and a run that was stopped goes on there",
    )


def run_archive(args: argparse.Namespace) -> int:
    """Score an archive; a file that cannot be read is a result, and no failure."""
    if args.json in (None, "-"):
        raise UsageError("--ray writes one file for each block of photos; give --json FOLDER")
    if args.save:
        raise UsageError("--save is not for --ray; run fre-run --save on the photos of interest")
    from fre_runtime.archive import score_archive

    counts = score_archive(
        args.model,
        args.sources,
        args.json,
        args.ray,
        args.engine,
        args.variant,
        args.threads or 1,
        args.max_pixels,
        quiet=args.quiet,
    )
    out(", ".join(f"{count} {state}" for state, count in counts.items()))
    return 0
