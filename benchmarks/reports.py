"""The committed JSONs that the tables are made of."""

import json
from pathlib import Path
from typing import Any


def load(results: Path, name: str) -> dict[str, Any]:
    """What a benchmark has written to ``results/name``."""
    report: dict[str, Any] = json.loads((results / name).read_text(encoding="utf-8"))
    return report
