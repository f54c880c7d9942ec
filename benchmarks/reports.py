"""What all tables share: the committed JSONs, and how a target is told."""

import json
from pathlib import Path
from typing import Any


def load(results: Path, name: str) -> dict[str, Any]:
    """What a benchmark has written to ``results/name``."""
    report: dict[str, Any] = json.loads((results / name).read_text(encoding="utf-8"))
    return report


def verdict(met: bool | None) -> str:
    """How a table says whether a target is met; nothing where there is none."""
    return "" if met is None else "met" if met else "**missed**"
