"""The quality tables of README.md and benchmarks/README.md, as Markdown."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.quality.data import OBJECTS, TEXTURES
from benchmarks.quality.published import Published, left_out, published, sources
from benchmarks.quality.summary import spread

Row = dict[str, Any]
TITLES = {
    "image_auroc": "image AUROC",
    "image_ap": "AP",
    "image_f1_max": "F1-max",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO (30%)",
    "false_reject_rate": "false rejects",
    "detection_rate": "detected",
}
RATES = ("false_reject_rate", "detection_rate")
