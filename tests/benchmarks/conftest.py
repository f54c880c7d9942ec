"""The benchmarks are no part of the distribution: they are found from the checkout, last."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent.parent))

from benchmarks.quality import summary


@pytest.fixture(scope="session")
def row():
    """``row(data, seed, area)`` gives a row as `benchmarks.quality.shipped` writes it."""

    def made(data, seed, area, by_kind=None, **more):
        figures = dict.fromkeys(summary.METRICS, None) | {"image_auroc": area}
        about = {"data": data, "seed": seed, "engine": "openvino", "variant": "fp32"}
        differ = {"raw_score": 1e-6, "labels": 0}
        return {**about, **figures, "by_kind": by_kind or {}, "engines_differ": differ, **more}

    return made
