"""Mean and spread over the draws of a split."""

from collections import defaultdict
from statistics import mean, stdev
from typing import Any

METRICS = (
    "image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "aupro", "false_reject_rate",
    "detection_rate",
)  # fmt: skip

Row = dict[str, Any]


def spread(values: list[float | None]) -> dict[str, float] | None:
    """Mean, sample standard deviation (0 of one value), least and largest; None without values."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "mean": mean(known),
        "std": stdev(known) if len(known) > 1 else 0.0,
        "min": min(known),
        "max": max(known),
        "n": len(known),
    }


def summarise(rows: list[Row]) -> list[Row]:
    """One row for each data set, engine and variant, over its seeds; by kind of defect as well."""
    grouped = defaultdict(list)
    for row in rows:
        grouped[row["data"], row["engine"], row["variant"]].append(row)
    return [
        {
            "data": data,
            "engine": engine,
            "variant": variant,
            "seeds": sorted(row["seed"] for row in group),
            **{metric: spread([row[metric] for row in group]) for metric in METRICS},
            "by_kind": by_kind([row["by_kind"] for row in group]),
        }
        for (data, engine, variant), group in grouped.items()
    ]


def by_kind(draws: list[dict[str, Row]]) -> dict[str, Row]:
    """Spread of each figure of each kind of defect."""
    kinds = sorted({kind for draw in draws for kind in draw})
    found = {}
    for kind in kinds:
        figures = [draw[kind] for draw in draws if kind in draw]
        names = dict.fromkeys(name for one in figures for name in one)
        found[kind] = {name: spread([one.get(name) for one in figures]) for name in names}
    return found
