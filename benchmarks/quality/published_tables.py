"""Published figures beside ours, as Markdown."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks.quality.published import (
    OBJECTS,
    TEXTURES,
    Published,
    left_out,
    published,
    sources,
)
from benchmarks.quality.tables import RATES, TITLES, Row, chosen, markdown
from benchmarks.reports import load

RUN_MVTEC = "`python -m benchmarks.quality mvtec ROOT`"


def published_table(results: Path) -> str:
    """Ours beside the published rows on the same data, image AUROC."""
    report = load(results, "quality.json")
    rows, cited = [], []
    for ours in chosen(report["results"], engine="openvino", variant="fp32", seed=0):
        others = published(ours["data"])
        for other in sorted(others, key=lambda row: row.mean):
            rows.append([f"`{ours['data']}`", other.title, f"{other.mean:.3f}"])
        if others:
            rows.append([f"`{ours['data']}`", "**ours**", f"**{ours['image_auroc']:.4f}**"])
        cited += others
    return f"{markdown(['data', 'method', 'image AUROC'], rows)}\n\n{_cited(cited)}"


def mvtec_table(results: Path) -> str:
    """All categories, ours beside the published ones; the published ones alone if not measured."""
    try:
        report = load(results, "quality-mvtec.json")
    except FileNotFoundError:
        report = {"results": [], "missing": [], "failed": {}}
    ours = chosen(report["results"], engine="openvino", variant="fp32")
    blocks = [] if ours else [f"Not measured here, for want of the photos: {RUN_MVTEC} does."]
    if ours:
        values = {m: {row["data"]: row[m] for row in ours} for m in TITLES}
        blocks.append(_by_category({TITLES[m]: values[m] for m in TITLES}, list(TITLES)))
    if report["missing"]:
        names = ", ".join(f"`{name}`" for name in report["missing"])
        blocks.append(f"Not there: {names}. Our means are over the others.")
    for name, why in report["failed"].items():
        blocks.append(f"Failed and left out: `{name}` ({why}).")
    cited: list[Published] = []
    for metric in ("image_auroc", "pixel_auroc", "aupro"):
        others = published("mvtec", metric)
        columns: dict[str, Row] = {"ours": {row["data"]: row[metric] for row in ours}}
        columns = columns if ours else {}
        columns |= {other.title: {**other.categories, "mean": other.mean} for other in others}
        blocks.append(f"{TITLES[metric]}:\n\n" + _by_category(columns, [metric] * len(columns)))
        cited += others
    return "\n\n".join([*blocks, _cited(cited)])


def _by_category(columns: dict[str, Row], metrics: Sequence[str]) -> str:
    """A table of categories: textures, objects, others, each with its mean, and the mean of all.

    A column gives its own mean where it has no categories, or rounded ones.
    """
    known = {name for column in columns.values() for name in column} - {"mean"}
    parts = {
        "textures": [name for name in TEXTURES if name in known],
        "objects": [name for name in OBJECTS if name in known],
        "others": sorted(known - {*TEXTURES, *OBJECTS}),
    }
    rows = []
    for part, names in parts.items():
        rows += [_line(name, columns, metrics, [name]) for name in names]
        if names:
            rows.append(_line(f"*{part}*", columns, metrics, names))
    everything = [name for names in parts.values() for name in names]
    rows.append(_line("**mean**", columns, metrics, everything))
    return markdown(["category", *columns], rows)


def _line(
    title: str, columns: dict[str, Row], metrics: Sequence[str], names: Sequence[str]
) -> list[str]:
    cells = []
    for column, metric in zip(columns.values(), metrics, strict=True):
        values = [column[name] for name in names if column.get(name) is not None]
        value = mean(values) if values else None
        if title == "**mean**":
            value = column.get("mean", value)
        cells.append(
            "-" if value is None else f"{value:.1%}" if metric in RATES else f"{value:.3f}"
        )
    return [title, *cells]


def _cited(rows: Sequence[Published]) -> str:
    lines = [f"* {line}" for line in sources(rows)]
    return "\n".join(["Sources of the published figures:", "", *lines])


def left_out_text(results: Path) -> str:
    """What of the published figures is missing."""
    return "\n".join(f"* {line}." for line in left_out())
