"""The speed table of the README, from the committed JSONs.

    python benchmarks/readme_table.py [--check]

Rewrites what stands between the markers; with --check it only compares, and exits 1 when the README
says something else than benchmarks/results.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
ENGINES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
SCOPES = {
    "graph": "graph alone, median (95th percentile)",
    "frame": "1200 x 1000 camera frame, resize included",
    "file": "the same as a JPEG, decoding included",
}


def load(results: Path, name: str) -> dict:
    return json.loads((results / name).read_text())


def bench_row(report: dict, engine: str, scope: str) -> dict:
    """The row of fp32 with the default threads: a report may also hold a sweep or variants."""
    threads = report["environment"]["default_threads"]
    wanted = {"engine": engine, "scope": scope, "variant": "fp32", "threads": threads}
    rows = [r for r in report["results"] if all(r[key] == wanted[key] for key in wanted)]
    if len(rows) != 1:
        sys.exit(f"error: {len(rows)} rows for {wanted}, expected one")
    return rows[0]


def table(results: Path) -> str:
    """The table as Markdown, without the markers."""
    latency, throughput = (load(results, f"bench-{s}.json") for s in ("latency", "throughput"))
    footprint = {row["engine"]: row for row in load(results, "footprint.json")["results"]}

    def milliseconds(engine: str, scope: str) -> str:
        found = bench_row(latency, engine, scope)["latency_ms"]
        return f"{found['median']:.1f} ({found['p95']:.1f}) ms"

    def rates(engine: str) -> str:
        fps = (bench_row(throughput, engine, scope)["fps"] for scope in ("graph", "frame"))
        return " / ".join(f"{rate:.0f}" for rate in fps)

    cells = {
        **{text: [milliseconds(e, scope) for e in ENGINES] for scope, text in SCOPES.items()},
        "frames a second, several at a time (graph / camera frame)": [rates(e) for e in ENGINES],
        "fresh `pip install '.[ENGINE]'`": [f"{footprint[e]['install_mb']} MB" for e in ENGINES],
        "start of the process's work to the first score": [
            f"{footprint[e]['first_result_ms'] / 1e3:.2f} s" for e in ENGINES
        ],
        "resident memory": [f"{footprint[e]['rss_mib']:.0f} MiB" for e in ENGINES],
    }
    lines = [f"| | {' | '.join(ENGINES.values())} |", "|---" * (len(ENGINES) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(row)} |" for name, row in cells.items()]
    return "\n".join(lines)


def replaced(readme: str, inner: str) -> str:
    """``readme`` with ``inner`` between the markers."""
    before, found, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        sys.exit(f"error: README.md has no {BEGIN} ... {END}; put them around the speed table")
    return f"{before}{BEGIN}\n{inner}\n{END}{after}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 when the README differs")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(argv)
    old = args.readme.read_text(encoding="utf-8")
    new = replaced(old, table(args.results))
    if args.check and new != old:
        print(f"error: the speed table of {args.readme} differs; run benchmarks/readme_table.py")
        return 1
    if not args.check:
        args.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
