"""The scaling tables of benchmarks/README.md."""

from pathlib import Path
from typing import Any

from benchmarks.reports import load


def scaling_table(results: Path) -> str:
    """Every case, by sweep, as Markdown."""
    report = load(results, "scaling.json")
    lines = [
        "| sweep | route | N | D | k | time | peak memory | variance held (best) |",
        "|---" * 8 + "|",
    ]
    for row in report["rows"]:
        if row["sweep"] == "processes":
            continue
        head = [row["sweep"], row["route"], _count(row["rows"]), _count(row["dimension"])]
        head.append(str(row["components"]))
        tail = (
            [f"failed: {row['failed']}", "", ""]
            if "failed" in row
            else [
                _time(row["seconds"]),
                f"{row['peak_mib']:.0f} MiB",
                f"{row['captured']:.4f} ({row['best']:.4f})",
            ]
        )
        lines.append(f"| {' | '.join(head + tail)} |")
    if found := report.get("projection"):
        lines += ["", projection(found)]
    return "\n".join(lines)


def projection(found: dict[str, Any]) -> str:
    """The largest case, in a sentence."""
    rows, dimension = found["rows"], found["dimension"]
    measured = ", ".join(f"{_count(n)} rows in {s:.1f} s" for n, s in found["from"])
    return (
        f"**Projection, not measured:** {_count(rows)} rows of {_count(dimension)} features "
        f"({4e-9 * rows * dimension:.0f} GB), streamed with k = {found['components']}: about "
        f"{_time(found['seconds'])} beside the backbone, in {found['peak_mib']:.0f} MiB. By a "
        f"straight line through {measured}, of which the slope between the last two is "
        f"{found['slope_ratio']:.2f} of that between the first two."
    )


def processes_table(results: Path) -> str:
    """Time to gather the features by several processes, as Markdown."""
    rows = [row for row in load(results, "scaling.json")["rows"] if row["sweep"] == "processes"]
    if not rows:
        return "Not measured yet."
    lines = ["| processes, a core each | photos | all features gathered in | faster |"]
    lines.append("|---" * 4 + "|")
    first = next((row for row in rows if "failed" not in row), {})
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['processes']} | | failed: {row['failed']} | |")
            continue
        ratio = first["gather_seconds"] / row["gather_seconds"]
        taken = f"{row['gather_seconds']:.1f} s"
        lines.append(f"| {row['processes']} | {row['photos']} | {taken} | {ratio:.2f} times |")
    return "\n".join(lines)


def _count(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _time(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
