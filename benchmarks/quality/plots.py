"""Pictures of the sweeps, as SVG that stays the same for the same figures."""

from collections import defaultdict
from math import ceil, floor
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.quality.summary import Row, spread

METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO (30%)"}
COLOURS = ("#0b6e99", "#c2571a", "#3d7d3a", "#7b4f9d", "#8a6d1d", "#555555")
HEIGHT = 0.34
"""Inches for each choice."""
STEP = 0.05
"""Axes begin and end at multiples of this: a difference of 0.001 must not fill a picture."""


def draw(report: Row, folder: Path) -> list[Path]:
    """Draw each sweep of ``report`` into ``folder``; returns the files."""
    from matplotlib import rcParams

    rcParams.update({"svg.hashsalt": "fre-edge", "svg.fonttype": "none", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    sweeps = defaultdict(list)
    for row in report["results"]:
        sweeps[row["sweep"]].append(row)
    written = []
    for name, rows in sweeps.items():
        figure = (
            variance(rows, report["default"])
            if name == "variance"
            else choices(name, rows, report["default"])
        )
        path = folder / f"quality-{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        written.append(path)
    return written


def variance(rows: list[Row], default: Row) -> Any:
    """Image AUROC against the variance kept, and against k: where it is flat, k does not matter."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for colour, (data, by_value) in zip(COLOURS, curves(rows).items(), strict=False):
        values = sorted(by_value)
        spreads = [spread([row["image_auroc"] for row in by_value[value]]) for value in values]
        means = [one["mean"] for one in spreads]
        low, high = [one["min"] for one in spreads], [one["max"] for one in spreads]
        ks = [mean(sum(row["k"]) for row in by_value[value]) for value in values]
        for axes, xs in ((left, values), (right, ks)):
            axes.plot(xs, means, marker="o", markersize=4, color=colour, label=data)
            axes.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    left.set_ylim(limits([row["image_auroc"] for row in rows]))
    left.axvline(float(default["variance"]), color="grey", linewidth=0.8, linestyle=":")
    left.set(xlabel="fraction of the variance that is kept", ylabel=METRICS["image_auroc"])
    right.set(xlabel="components k, of all layers together", xscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both", linewidth=0.5)
    left.legend(frameon=False, fontsize="small")
    return figure


def curves(rows: list[Row]) -> dict[str, dict[float, list[Row]]]:
    """Rows of each data set by the variance kept."""
    found: dict[str, dict[float, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["data"]][float(row["label"])].append(row)
    return found


def choices(name: str, rows: list[Row], default: Row) -> Any:
    """A dot for each choice and data set, a panel for each metric, a bar from least to largest."""
    from matplotlib.figure import Figure

    labels = list(dict.fromkeys(row["label"] for row in rows))[::-1]
    names = list(dict.fromkeys(row["data"] for row in rows))
    metrics = [m for m in METRICS if matters(m, rows)]
    figure = Figure(figsize=(9, 1.2 + HEIGHT * len(labels)), layout="constrained")
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for i, data in enumerate(names):
            offset = (len(names) - 1 - 2 * i) * 0.1
            for y, label in enumerate(labels):
                found = spread(
                    [r[metric] for r in rows if (r["data"], r["label"]) == (data, label)]
                )
                if found is None:
                    continue
                colour = COLOURS[i % len(COLOURS)]
                ends = [found["min"], found["max"]]
                axes.plot(ends, [y + offset] * 2, color=colour, linewidth=1.5, alpha=0.5)
                axes.plot(
                    found["mean"], y + offset, "o", color=colour, markersize=5,
                    label=data if y == 0 else None,
                )  # fmt: skip
        axes.set_xlim(limits([row[metric] for row in rows if row[metric] is not None]))
        axes.set(xlabel=METRICS[metric], yticks=range(len(labels)), yticklabels=labels)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(alpha=0.3, linewidth=0.5)
    for tick in panels[0].get_yticklabels():
        if tick.get_text() == default.get("layers" if name == "layers" else name):
            tick.set_fontweight("bold")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names),
        frameon=False, fontsize="small",
    )  # fmt: skip
    return figure


def matters(metric: str, rows: list[Row]) -> bool:
    """Whether the choice changes the metric: how the map is pooled leaves pixels as they are."""
    found = defaultdict(set)
    for row in rows:
        if row[metric] is not None:
            found[row["data"], row["seed"]].add(row[metric])
    return metric == "image_auroc" or any(len(values) > 1 for values in found.values())


def limits(values: list[float]) -> tuple[float, float]:
    """Ends of an axis, a little beyond the multiples of `STEP` around ``values``."""
    return floor(min(values) / STEP) * STEP - STEP / 10, ceil(max(values) / STEP) * STEP + STEP / 10
