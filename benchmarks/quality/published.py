"""Figures that others published, each with its source."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("published.json")
TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
OBJECTS = (
    "bottle", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw", "toothbrush",
    "transistor", "zipper",
)  # fmt: skip
"""Categories of MVTec AD, in the order of the published tables."""
METRICS = ("image_auroc", "pixel_auroc", "aupro")


@dataclass(frozen=True)
class Published:
    """One method's figures on one data set, in 0..1."""

    method: str
    detail: str
    """Backbone and what else tells two rows of one method apart."""
    data: str
    """``mvtec``, or the name of a category."""
    metric: str
    source: str
    """Key of `sources`."""
    mean: float
    categories: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse what would be a wrong figure in a table."""
        if self.metric not in METRICS:
            raise ValueError(f"{self.method}: metric {self.metric!r}; choose {', '.join(METRICS)}")
        for name, value in {"mean": self.mean, **self.categories}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{self.method}, {name}: {value} is not in 0..1; not percent")

    @property
    def title(self) -> str:
        """Method and detail."""
        return f"{self.method} ({self.detail})" if self.detail else self.method


def published(data: str, metric: str = "image_auroc", file: Path = FILE) -> list[Published]:
    """Rows on one data set."""
    rows = [Published(**row) for row in json.loads(file.read_text(encoding="utf-8"))["rows"]]
    return [row for row in rows if (row.data, row.metric) == (data, metric)]


def sources(rows: Iterable[Published], file: Path = FILE) -> list[str]:
    """The sources of ``rows`` as lines of text, each once."""
    known = json.loads(file.read_text(encoding="utf-8"))["sources"]
    lines: dict[str, list[str]] = {}
    for row in rows:
        source = known[row.source]
        said = f"{source['citation']} ({source['url']}; measured by: {source['by']})"
        title = f"{row.title} [{row.note}]" if row.note else row.title
        lines.setdefault(said, []).append(title)
    return [f"{', '.join(dict.fromkeys(titles))}: {said}" for said, titles in lines.items()]


def left_out(file: Path = FILE) -> list[str]:
    """What is missing for want of a source."""
    return list(json.loads(file.read_text(encoding="utf-8"))["left_out"])
