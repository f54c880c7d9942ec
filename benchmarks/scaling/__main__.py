"""Time and peak memory of a fit after the backbone, each in a fresh process.

    python -m benchmarks.scaling [--quick] [--photos CATEGORY] [--json FILE]

Features of a known, slowly falling spectrum are made as they are wanted, and that time is taken
off. Swept: the photos N, the features D, the components k; then the largest exact fit, and with
--photos the processes that share a real fit, each with a core of its own. The case of a million
photos with 65,536 features (262 GB) is projected from measured slices. --quick leaves out what
takes long: about 5 minutes on 2 cores. Plots go to ``plots`` beside the JSON.
"""

import argparse
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.scaling import ranks
from benchmarks.scaling.measure import METHODS, Case, in_fresh_process
from benchmarks.scaling.plots import draw
from fre_runtime.environment import environment
from fre_runtime.threads import physical_cores

SWEEPS = ("rows", "dimension", "components", "largest", "slices", "processes")
K = 64
MILLION = 10**6
LARGEST = 65536


def cases(*, quick: bool) -> list[Case]:
    """What is measured, the cheap ones first."""
    most_kept, most_streamed = (3000, 30_000) if quick else (10_000, MILLION)
    dimensions = (1024, 4096, 16_384) if quick else (1024, 4096, 16_384, LARGEST)
    found = []
    dimension = 1024 if quick else 2048
    for rows in (100, 300, 1000, 3000, 10_000, 100_000, 300_000, MILLION):
        for route, method in METHODS.items():
            most = most_streamed if method == "incremental" else most_kept
            k = min(K, rows // 4)
            if rows <= most:
                found.append(Case("rows", route, rows, dimension, k))
    if quick:
        found.append(Case("rows", "incremental", most_streamed, dimension, K))
    found += [Case("dimension", route, 1000, d, K) for d in dimensions for route in METHODS]
    ks = (16, 64, 256) if quick else (16, 32, 64, 128, 256)
    found += [Case("components", route, 2000, 4096, k) for k in ks for route in METHODS]
    if not quick:
        found.append(Case("largest", "pca, features on disk", 10_000, LARGEST, 200))
    return found


def slices(*, quick: bool) -> list[Case]:
    """What the largest case is projected from; the sketches must be full in the first already."""
    counts = (3072, 4096, 6144) if quick else (4096, 8192, 16_384)
    return [Case("slices", "incremental", rows, LARGEST, K) for rows in counts]


def project(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The largest case by a straight line through its slices."""
    measured = [(row["rows"], row["seconds"]) for row in rows if "failed" not in row]
    if len(measured) < 3:
        return None
    slopes = [(s2 - s1) / (n2 - n1) for (n1, s1), (n2, s2) in pairwise(measured)]
    (first, start), (last, end) = measured[0], measured[-1]
    slope = (end - start) / (last - first)
    return {
        "projection": True,
        "rows": MILLION,
        "dimension": LARGEST,
        "components": K,
        "seconds": end + slope * (MILLION - last),
        "peak_mib": max(row["peak_mib"] for row in rows),
        "from": measured,
        "slope_ratio": slopes[-1] / slopes[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--photos", type=Path, metavar="CATEGORY", help="for the processes")
    parser.add_argument(
        "--only", nargs="+", choices=SWEEPS, default=SWEEPS, help="the rest stays as it was"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/scaling.json"))
    args = parser.parse_args()
    report: dict[str, Any] = {"environment": environment(), "rows": []}
    if set(args.only) != set(SWEEPS):
        old = json.loads(args.json.read_text())
        report |= {key: old[key] for key in ("projection",) if key in old}
        report["rows"] = [row for row in old["rows"] if row["sweep"] not in args.only]

    def add(row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)
        report["rows"].append(row)
        args.json.write_text(json.dumps(report, indent=1) + "\n")

    args.json.parent.mkdir(parents=True, exist_ok=True)
    for case in cases(quick=args.quick):
        if case.sweep in args.only:
            add(in_fresh_process(case))
    if "slices" in args.only:
        sliced = [in_fresh_process(case) for case in slices(quick=args.quick)]
        for row in sliced:
            add(row)
        if found := project(sliced):
            report["projection"] = found
    if args.photos and "processes" in args.only:
        for processes in (1, 2, 4, 8):
            if processes <= physical_cores():
                add(ranks.run(args.photos, processes))
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    for path in draw(report, args.json.parent / "plots"):
        print(path)


if __name__ == "__main__":
    main()
