"""Curves of a thread sweep, drawn with matplotlib (``pip install 'fre-edge[plot]'``)."""

import io
from collections import defaultdict
from pathlib import Path
from typing import Any

from fre_runtime.errors import MissingDependencyError
from fre_runtime.whole_file import write_whole

SUFFIXES = (".svg", ".png")
DASHES = {"graph": "-", "frame": "--", "file": ":"}


def require_matplotlib() -> None:
    """Fail before minutes of measuring, not after.

    Raises
    ------
    MissingDependencyError
        When matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "--plot needs matplotlib, which is not installed; run: pip install 'fre-edge[plot]'"
        ) from error


def plot_threads(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw frames a second and median latency, with its interval, against threads.

    One colour for each model, engine and variant, one dash for each scope. ``rows`` are results of
    fre-bench; the suffix of ``path`` decides between SVG and PNG.

    Raises
    ------
    MissingDependencyError
        When matplotlib is not installed.
    OutputError
        When the file cannot be written.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    rate, latency = figure.subplots(1, 2)
    colours: dict[str, str] = {}
    for (name, scope), curve in _curves(rows).items():
        colour = colours.setdefault(name, f"C{len(colours)}")
        style = {"color": colour, "linestyle": DASHES[scope], "marker": "o"}
        threads = [row["threads"] for row in curve]
        medians = [row["latency_ms"]["median"] for row in curve]
        rate.plot(threads, [row["fps"] for row in curve], label=f"{name}, {scope}", **style)
        latency.errorbar(threads, medians, yerr=_error_bars(curve), capsize=3, **style)
    for axes, title in ((rate, "frames a second"), (latency, "median latency, ms")):
        axes.set(title=title, xlabel="threads", ylim=(0, None))
        axes.set_xticks(sorted({row["threads"] for row in rows}))
        axes.grid(alpha=0.3)
    rate.legend(fontsize="small")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], dpi=150)
    write_whole(path, drawn.getvalue())


def _curves(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Rows of one curve each, by what tells the curves apart and by scope."""
    varying = [k for k in ("model", "engine", "variant") if len({r.get(k) for r in rows}) > 1]
    curves = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row["threads"])):
        name = " ".join(str(row[key]) for key in varying or ["engine"])
        curves[name, row["scope"]].append(row)
    return curves


def _error_bars(curve: list[dict[str, Any]]) -> list[list[float]]:
    """Distances of the interval's ends from the median, (2, points); 0 for an unknown end."""
    bars: list[list[float]] = [[], []]
    for row in curve:
        median = row["latency_ms"]["median"]
        for side, end in zip(bars, row["latency_interval_ms"]["median"], strict=True):
            side.append(abs(median - end) if end is not None else 0.0)
    return bars
