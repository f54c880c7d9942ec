"""How well the project finds defects. Run from the root of the repository.

python -m benchmarks.quality rows   [CATEGORY ...] [--grouped CATEGORY GROUPS]
python -m benchmarks.quality sweeps [CATEGORY ...] [--grouped CATEGORY GROUPS]
python -m benchmarks.quality labels [CATEGORY ...] [--grouped CATEGORY GROUPS]
python -m benchmarks.quality choose [CATEGORY ...] [--grouped CATEGORY GROUPS]
python -m benchmarks.quality mvtec  ROOT
python -m benchmarks.quality plots
"""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fre_runtime.commands.common import positive_int, run_command, write_json
from fre_runtime.environment import environment
from fre_runtime.errors import DataError, UsageError
from fre_runtime.harness.plot import require_matplotlib

if TYPE_CHECKING:
    from benchmarks.quality.summary import Row

RESULTS = Path("benchmarks/results")
PLOTS = RESULTS / "plots"
CACHE = Path("build/quality/features")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "categories",
        nargs="*",
        metavar="CATEGORY",
        help="folder in MVTec layout, or NAME=FOLDER; the solar cells come by themselves",
    )
    data.add_argument(
        "--grouped",
        nargs=2,
        action="append",
        default=[],
        metavar=("CATEGORY", "GROUPS"),
        help="a category whose good photos come in groups, each drawn whole; GROUPS is a CSV file "
        "with the columns file,group, or name:REGEX for what the names of one group share",
    )
    data.add_argument("--quick", action="store_true", help="fewer draws and points")
    cached = argparse.ArgumentParser(add_help=False)
    cached.add_argument("--cache", type=Path, default=CACHE, metavar="DIR")
    cached.add_argument(
        "--cache-gib", type=positive_int, default=4, help="least used features are dropped above"
    )
    rows = parts.add_parser(
        "rows",
        parents=[data, shared],
        help="fre-export and fre-eval, both engines, over draws of the split -> quality.json",
    )
    labels = parts.add_parser(
        "labels",
        parents=[data, cached, shared],
        help="defective photos with a near-copy among the good training photos, and what they "
        "cost -> quality-labels.json",
    )
    for part in (rows, labels):
        part.add_argument(
            "--seeds", type=positive_int, default=5, help="draws of the split; 0 is the given one"
        )
    sweeps = parts.add_parser(
        "sweeps",
        parents=[data, cached, shared],
        help="one choice at a time, with plots -> quality-sweeps.json",
    )
    sweeps.add_argument("--seeds", type=positive_int, default=3, help="draws of the split")
    sweeps.add_argument(
        "--only",
        metavar="SWEEP[,SWEEP]",
        help="default: all of them; the others stay in the file as they are",
    )
    parts.add_parser(
        "choose",
        parents=[data, cached, shared],
        help="the variance chosen by painted defects, beside test labels -> quality-choice.json",
    )
    mvtec = parts.add_parser(
        "mvtec",
        parents=[shared],
        help="every category below ROOT, as the published tables -> quality-mvtec.json",
    )
    mvtec.add_argument("root", type=Path, metavar="ROOT")
    plots = parts.add_parser("plots", parents=[shared], help="draw quality-sweeps.json again")
    for part in (sweeps, plots):
        part.add_argument("--plots", type=Path, default=PLOTS, metavar="DIR")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run one part."""
    logging.getLogger("fre_edge").setLevel(logging.ERROR)
    {
        "rows": run_rows,
        "labels": run_labels,
        "sweeps": run_sweeps,
        "choose": run_choose,
        "mvtec": run_mvtec,
        "plots": run_plots,
    }[args.part](args)
    return 0


def run_rows(args: argparse.Namespace) -> None:
    from benchmarks.quality import data, shipped

    seeds = min(args.seeds, 2) if args.quick else args.seeds
    with data.categories(args.categories, args.grouped) as categories:
        report = shipped.measure(categories, seeds, variants=not args.quick)
    save(args.results / "quality.json", report)


def run_labels(args: argparse.Namespace) -> None:
    from benchmarks.quality import data, labels
    from benchmarks.quality.features import Store

    seeds = min(args.seeds, 2) if args.quick else args.seeds
    store = Store(args.cache, args.cache_gib << 30)
    with data.categories(args.categories, args.grouped) as categories:
        report = labels.measure(categories, seeds, store)
    save(args.results / "quality-labels.json", report)


def run_sweeps(args: argparse.Namespace) -> None:
    from benchmarks.quality import data, sweeps
    from benchmarks.quality.features import Store

    names = args.only.split(",") if args.only else sweeps.SWEEPS
    if unknown := set(names) - set(sweeps.SWEEPS):
        raise UsageError(
            f"sweep {min(unknown)!r} does not exist; choose {', '.join(sweeps.SWEEPS)}"
        )
    require_matplotlib()
    seeds = 1 if args.quick else args.seeds
    store = Store(args.cache, args.cache_gib << 30)
    with data.categories(args.categories, args.grouped) as categories:
        report = sweeps.measure(categories, names, seeds, store, quick=args.quick)
    path = args.results / "quality-sweeps.json"
    if args.only and path.exists():
        report = sweeps.joined(json.loads(path.read_text()), report)
    save(path, report)
    run_plots(args)


def run_choose(args: argparse.Namespace) -> None:
    from benchmarks.quality import choose, data
    from benchmarks.quality.features import Store

    store = Store(args.cache, args.cache_gib << 30)
    with data.categories(args.categories, args.grouped) as categories:
        report = choose.measure(categories, store, quick=args.quick)
    save(args.results / "quality-choice.json", report)


def run_mvtec(args: argparse.Namespace) -> None:
    from benchmarks.quality import shipped

    save(args.results / "quality-mvtec.json", shipped.measure_mvtec(args.root))


def run_plots(args: argparse.Namespace) -> None:
    from benchmarks.quality import plots

    require_matplotlib()
    path = args.results / "quality-sweeps.json"
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); run `sweeps` first") from error
    for written in plots.draw(report, args.plots):
        print(written)


def save(path: Path, report: "Row") -> None:
    write_json(str(path), {"environment": environment(), **report})
    print(path)


if __name__ == "__main__":
    sys.exit(run_command(sys.modules[__name__]))
