"""The report's charts as inline SVG, in the page's own colours and font."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fre_runtime.calibration import Histogram, Threshold
from fre_runtime.metrics import Floats

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that stand for the style sheet's: a page may be light, dark or on paper.
INK, MUTED, GOOD, BAD, PLAIN = "#010101", "#020202", "#030303", "#040404", "#050505"
VARIABLES = {INK: "ink", MUTED: "muted", GOOD: "good", BAD: "bad", PLAIN: "plain"}

BIN = 0.02
"""Width of a histogram bar on the calibrated scale."""
POINTS = 300
"""Of a drawn curve, at most: pixels would give half a million."""


@dataclass(frozen=True)
class Class:
    """Photos of one kind in a histogram."""

    name: str
    scores: Floats
    """Calibrated, (n,)."""
    colour: str


def score_histogram(
    classes: Sequence[Class], held_out: tuple[Histogram, Threshold] | None, alt: str
) -> "Markup":
    """Share of each class's photos by calibrated score, and the threshold at 0.5.

    ``held_out``: what the threshold was set on, drawn as a line; raw scores, with the threshold
    that makes them calibrated ones.
    """
    figure, axes = _figure(7.4, 3.0)
    everything = [c.scores for c in classes]
    line = None
    if held_out is not None:
        counts, threshold = held_out
        edges = np.geomspace(counts.low, counts.high, len(counts.counts) + 1)
        line = threshold.calibrated(edges), np.append(0, np.cumsum(counts.counts))
        everything.append(line[0])
    low = min(0.4, *(float(scores.min()) for scores in everything if len(scores)))
    high = max(0.6, *(float(scores.max()) for scores in everything if len(scores)))
    bins = np.arange(np.floor(low / BIN), np.ceil(high / BIN) + 1) * BIN
    if line is not None:
        # Bars of equal width again: the share below each edge, differenced.
        below = np.interp(bins, *line) / line[1][-1]
        axes.stairs(
            np.diff(below) * 100, bins, color=MUTED, linestyle="--",
            label=f"held-out good ({line[1][-1]:.0f})",
        )  # fmt: skip
    for one in classes:
        share = np.histogram(np.clip(one.scores, bins[0], bins[-1]), bins)[0] / len(one.scores)
        label = f"{one.name} ({len(one.scores)})"
        axes.stairs(share * 100, bins, fill=True, color=one.colour, alpha=0.35)
        axes.stairs(share * 100, bins, color=one.colour, linewidth=1.4, label=label)
    axes.axvline(0.5, color=INK, linewidth=1.2)
    axes.annotate(
        "threshold", (0.5, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
        textcoords="offset points", color=INK, fontsize=9,
    )  # fmt: skip
    axes.set(xlabel="score", ylabel="% of the photos", xlim=(bins[0], bins[-1]))
    # Above the bars, wherever these are.
    _finish(axes, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0.2)
    return _svg(figure, alt)


def curve(
    points: tuple[Floats, Floats],
    labels: tuple[str, str],
    limit: float,
    alt: str,
    operating_point: tuple[float, float] | None = None,
) -> "Markup":
    """A curve of rates over false alarms from 0 to ``limit``; the area below it is what counts."""
    figure, axes = _figure(4.5, 3.5)
    x, y = points
    if len(x) > POINTS:
        grid = np.linspace(0, limit, POINTS)
        x, y = np.append(0.0, grid), np.append(0.0, np.interp(grid, x, y))
    axes.fill_between(x, y, color=PLAIN, alpha=0.15, linewidth=0)
    axes.plot(x, y, color=PLAIN, linewidth=1.6)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":", label="chance")
    if operating_point is not None:
        axes.plot(*operating_point, "o", color=INK, label="at the threshold", clip_on=False)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, limit), ylim=(0, 1.01))
    _finish(axes, loc="lower right")
    return _svg(figure, alt)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _finish(axes: "Axes", **legend: Any) -> None:  # noqa: ANN401 - as matplotlib takes it
    axes.grid(color=MUTED, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=9.5)
    axes.legend(**legend, frameon=False, fontsize=9, labelcolor=INK)


def _svg(figure: "Figure", alt: str) -> "Markup":
    from markupsafe import Markup
    from matplotlib import rc_context

    text = io.StringIO()
    # Text stays text, laid out as in the page; nothing changes from run to run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    picture = text.getvalue()
    picture = picture[picture.index("<svg") :]
    picture = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", picture, flags=re.S)
    picture = re.sub(r"font-family: [^;\"]*;? ?", "", picture)
    for colour, name in VARIABLES.items():
        picture = picture.replace(colour, f"var(--{name})")
    _, rest = picture.split(">", 1)
    width, height = (72 * inches for inches in figure.get_size_inches())
    head = Markup('<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {:.0f} {:.0f}">')
    return head.format(alt, width, height) + Markup(rest)
