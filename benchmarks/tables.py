"""The tables of README.md and benchmarks/README.md, from the committed JSONs.

    python -m benchmarks.tables [--check]

Rewrites what stands between the markers; with --check it only compares, and exits 1 where a
document says something else than benchmarks/results.
"""

import argparse
import sys
from pathlib import Path
from statistics import median

from benchmarks import method_tables as method
from benchmarks.quality import published_tables
from benchmarks.quality import tables as quality
from benchmarks.reports import load, verdict
from benchmarks.scaling import tables as scaling

ROOT = Path(__file__).parent.parent
ENGINES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
MOST_RESIDENT = {"openvino": 250, "onnxruntime": 200}
"""MiB that a process with EfficientNet-Lite0 may take, or 20 more than its bare backbone."""
MOST_ON_DISK = {"fp32": 10, "int8": 4}
"""MiB of EfficientNet-Lite0's ONNX file, by precision."""
SCOPES = {
    "graph": "graph alone, median (95th percentile)",
    "frame": "1200 x 1000 camera frame, resize included",
    "file": "the same as a JPEG, decoding included",
}


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


def variants_table(results: Path) -> str:
    """Speed and quality of the precision variants in OpenVINO, as Markdown."""
    rows = [
        row
        for row in load(results, "quality.json")["results"]
        if row["engine"] == "openvino" and row["seed"] == 0
    ]
    names = list(dict.fromkeys(row["data"] for row in rows))
    times = {
        row["variant"]: row["ratio"]["median"]
        for row in load(results, "limits.json")["rows"]
        if row["what"] == "over fp32"
        and (row["model"], row["engine"]) == ("efficientnet_lite0", "openvino")
    }
    lines = [
        f"| variant | time over fp32's | {' | '.join(names)} |",
        "|---" * (len(names) + 2) + "|",
    ]
    for variant in ("fp32", "bf16", "int8"):
        figures = {row["data"]: row for row in rows if row["variant"] == variant}
        cells = [
            f"{figures[name]['image_auroc']:.4f} ({figures[name]['false_reject_rate']:.1%})"
            if name in figures
            else "left out by its gate"
            for name in names
        ]
        lines.append(f"| {variant} | {times.get(variant, 1):.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def limits_table(results: Path) -> str:
    """Ratios of `limits.py` as Markdown."""
    lines = ["| what | ours | beside | ratio (95% interval) | target | |", "|---" * 6 + "|"]
    for row in load(results, "limits.json")["rows"]:
        ratio = row["ratio"]
        cells = (
            [
                f"`Detector.{row['side']}`, over benchmark_app",
                f"{median(row['fps']):.0f} fps",
                f"{median(row['benchmark_app_fps']):.0f} fps",
            ]
            if row["what"] == "throughput"
            else [_described(row), f"{row['ours_ms']:.2f} ms", f"{row['theirs_ms']:.2f} ms"]
        )
        cells.append(f"{ratio['median']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})")
        cells += [f"{row['target']:g}" if row["target"] else "-", verdict(row["met"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _described(row: dict) -> str:
    beside = {
        "graph": "whole over bare backbone",
        "over fp32": "whole over its fp32",
        "detector": "`Detector` on an array at model size over the raw request",
        "frame": "`Detector` on a 1200 x 1000 frame over the raw request",
    }[row["what"]]
    about = [row.get("model", "efficientnet_lite0"), ENGINES[row["engine"]], row["variant"]]
    return f"{beside}: {', '.join(about)}"


def nodes_table(results: Path) -> str:
    """Where the time goes (`nodes.py`), by part, as Markdown."""
    rows = load(results, "nodes.json")["rows"]
    parts = [part for part in rows[0]["parts"] if part != "backbone"]
    head = ["model", "engine", "variant", "backbone", *parts, "both alone, in the caches"]
    head += ["W for a photo", "read at", "numpy"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        trunk = row["parts"]["backbone"]["us"]
        cells = [row["model"], ENGINES[row["engine"]], row["variant"], f"{trunk:.0f} us"]
        for part in parts:
            us, nodes = row["parts"][part]["us"], row["parts"][part]["nodes"]
            cells.append(f"{us:.0f} us, {us / trunk:.1%} ({nodes})")
        alone = row["head_alone_us"]
        cells.append("-" if alone is None else f"{alone:.0f} us, {alone / trunk:.1%}")
        cells += [f"{row['w_bytes'] / 1e6:.1f} MB", f"{row['w_gb_per_s']:.0f} GB/s"]
        cells.append(f"{row['numpy_cold_gb_per_s']:.0f} GB/s")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def fitting_table(results: Path) -> str:
    """Times of `fitting.py` as Markdown."""
    report = load(results, "fitting.json")
    lines = ["| photos | fit | one pass by | takes | fit over it | target 1.10 |", "|---" * 6 + "|"]
    for row in report["rows"]:
        fit = f"{median(row['seconds']['fit']):.2f} s"
        for name, ratio in row["fit_over"].items():
            taken = f"{median(row['seconds'][name]):.2f} s"
            told = f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
            met = verdict(ratio["median"] <= 1.10)
            lines.append(f"| {row['images']} | {fit} | {name} | {taken} | {told} | {met} |")
    for precision, times in report["export_seconds"].items():
        lines.append(
            f"| 209 | | `fre-export --precision {precision}`, folder to verified directory | "
            f"{median(times):.1f} s | | {'target 25 s: ' + verdict(median(times) <= 25)} |"
        )
    return "\n".join(lines)


def weight_table(results: Path) -> str:
    """Start, memory and size beside their targets (`footprint.py`, `limits.py`), as Markdown."""
    lines = ["| what | measured | target | |", "|---" * 4 + "|"]

    def line(what: str, value: float, unit: str, target: float, why: str = "") -> None:
        digits = 2 if unit == "s" else 1 if unit == "MiB" else 0
        told = f"{value:.{digits}f} {unit} | {target:.{digits}f} {unit}{why}"
        lines.append(f"| {what} | {told} | {verdict(value <= target)} |")

    for row in load(results, "footprint.json")["results"]:
        engine = row["engine"]
        line(f"`import fre_runtime`, {engine} installed", row["import_package_ms"], "ms", 150)
        line(f"start to the first score, {engine}", row["first_result_ms"] / 1e3, "s", 1)
        floor = row["bare_backbone_rss_mib"] + 20
        why = (
            f" (bare backbone {row['bare_backbone_rss_mib']:.1f}, and 20; with OpenCV reading the "
            f"same photo it takes {row['bare_backbone_opencv_rss_mib']:.1f})"
        )
        target = min(floor, MOST_RESIDENT[engine])
        line(f"resident memory, {engine}", row["rss_mib"], "MiB", target, why)
    sizes = load(results, "limits.json")["sizes"]["efficientnet_lite0"]
    for variant, target in MOST_ON_DISK.items():
        line(f"ONNX file, {variant}", sizes[variant], "MiB", target)
    return "\n".join(lines)


def peers_table(results: Path) -> str:
    """Rows of `peers/run.py` as Markdown."""
    lines = [
        "| peer (its layers) | ours (layers) | theirs | ours | times faster | target | |"
        " bare backbone | fit, theirs | fit, ours |",
        "|---" * 10 + "|",
    ]
    over_bare = load(results, "peers-limit.json")["over_bare"]
    for row in load(results, "peers.json")["results"]:
        names = [
            f"{row['peer']} ({' + '.join(row['their_layers'])})",
            f"{row['ours']} ({' + '.join(row['our_layers'])})",
        ]
        if "failed" in row:
            lines.append(f"| {' | '.join(names)} | failed: {row['failed']} |" + " |" * 7)
            continue
        ratio = row["ratio"]
        cells = [
            *names,
            f"{row['their_ms']['median']:.2f} ms",
            f"{row['our_ms']['median']:.2f} ms",
            f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})",
            f"{row['target']:g}",
            verdict(ratio["median"] >= row["target"]),
            f"{ratio['median'] * over_bare[row['ours']]['median']:.2f}",
            f"{row['their_fit']['fit_s']:.1f} s",
            f"{row['our_fit']['fit_s']:.1f} s",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cpp_table(results: Path) -> str:
    """Rows of `cpp.py`: the C++ programs beside Python."""
    report = load(results, "cpp.json")
    lines = ["| engine | what | C++ | Python | C++ over Python |", "|---" * 5 + "|"]
    for row in report["results"]:
        ratio = row["ratio"]
        cells = [
            ENGINES[row["engine"]],
            row["scope"],
            f"{row['cpp_ms']:.2f} ms",
            f"{row['python_ms']:.2f} ms",
            f"{ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def replaced(text: str, block: str, inner: str, name: str) -> str:
    """``text`` with ``inner`` between the markers of ``block``."""
    begin, end = f"<!-- {block}:begin -->", f"<!-- {block}:end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        sys.exit(f"error: {name} has no {begin} ... {end}; put them around its table")
    return f"{before}{begin}\n{inner}\n{end}{after}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 where a document differs")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--benchmarks", type=Path, default=ROOT / "benchmarks/README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    args = parser.parse_args(argv)
    documents = {
        args.readme: {
            "quality": quality.headline_table,
            "speed": table,
            "variants": variants_table,
        },
        args.benchmarks: {
            "quality": quality.rows_table,
            "leaks": quality.leaks_text,
            "labels": quality.labels_table,
            "kinds": quality.kinds_table,
            "published": published_tables.published_table,
            "mvtec": published_tables.mvtec_table,
            "left-out": published_tables.left_out_text,
            "sweeps": quality.sweeps_table,
            "choice": quality.choice_table,
            "cuts": quality.cuts_table,
            "limits": limits_table,
            "nodes": nodes_table,
            "fitting": fitting_table,
            "weight": weight_table,
            "strategies": method.strategies_table,
            "subspaces": method.subspaces_table,
            "thresholds": method.thresholds_table,
            "drift": method.drift_table,
            "scaling": scaling.scaling_table,
            "processes": scaling.processes_table,
            "peers": peers_table,
            "cpp": cpp_table,
        },
    }
    for path, blocks in documents.items():
        old = new = path.read_text(encoding="utf-8")
        for block, write in blocks.items():
            try:
                inner = write(args.results)
            except FileNotFoundError as error:
                inner = f"Not measured yet: `{Path(error.filename).name}` is missing."
            new = replaced(new, block, inner, path.name)
        if args.check and new != old:
            print(f"error: a table of {path} differs; run python -m benchmarks.tables")
            return 1
        if not args.check:
            path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
