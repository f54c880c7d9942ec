"""Log-log pictures of the sweeps, as SVG that stays the same for the same figures."""

from collections import defaultdict
from pathlib import Path
from typing import Any

COLOURS = ("#0b6e99", "#c2571a", "#3d7d3a", "#7b4f9d")
SWEEPS = {
    "rows": ("rows", "photos N"),
    "dimension": ("dimension", "features D"),
    "components": ("components", "components k"),
}
"""Each sweep's key and label."""


def draw(report: dict[str, Any], folder: Path) -> list[Path]:
    """Draw each sweep of ``report`` into ``folder``; returns the files."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure

    rcParams.update({"svg.hashsalt": "fre-edge", "svg.fonttype": "none", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for sweep, (key, label) in SWEEPS.items():
        rows = [row for row in report["rows"] if row["sweep"] == sweep and "failed" not in row]
        if not rows:
            continue
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        of_route = defaultdict(list)
        for row in rows:
            of_route[row["route"]].append(row)
        for colour, (route, found) in zip(COLOURS, of_route.items(), strict=False):
            found = sorted(found, key=lambda row: row[key])
            xs = [row[key] for row in found]
            style = {"marker": "o", "markersize": 4, "color": colour, "label": route}
            left.plot(xs, [row["seconds"] for row in found], **style)
            right.plot(xs, [row["peak_mib"] for row in found], **style)
        if sweep == "rows":
            _floor(right, rows)
        peaks = [row["peak_mib"] for row in rows]
        right.set_ylim(min(peaks) / 2, 2 * max(peaks))  # little growth must look little
        for axes, what in ((left, "seconds after the backbone"), (right, "peak memory, MiB")):
            axes.set(xscale="log", yscale="log", xlabel=label, ylabel=what)
            axes.grid(which="major", alpha=0.3)
        left.legend(frameon=False)
        written.append(_save(figure, folder / f"scaling-{sweep}.svg"))
    rows = [r for r in report["rows"] if r["sweep"] == "processes" and "failed" not in r]
    if len(rows) > 1:
        figure = Figure(figsize=(4.5, 3.8), layout="constrained")
        axes = figure.subplots()
        xs = [row["processes"] for row in rows]
        seconds = [row["gather_seconds"] for row in rows]
        axes.plot(xs, seconds, marker="o", color=COLOURS[0], label="measured")
        axes.plot(xs, [seconds[0] * xs[0] / x for x in xs], ":", color="grey", label="linear")
        axes.set(xscale="log", yscale="log", xlabel="processes, a core each")
        axes.set(ylabel="seconds to gather all features", xticks=xs, xticklabels=map(str, xs))
        axes.legend(frameon=False)
        written.append(_save(figure, folder / "scaling-processes.svg"))
    return written


def _floor(axes: Any, rows: list[dict[str, Any]]) -> None:
    """What a process takes before the first photo: libraries, and the source of the features."""
    least = min(row["before_mib"] for row in rows)
    axes.axhline(least, color="grey", linewidth=0.8, linestyle=":")
    axes.annotate("before the first photo", (1, least), xycoords=("axes fraction", "data"),
                  ha="right", va="bottom", color="grey", fontsize=8)  # fmt: skip


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    return path
