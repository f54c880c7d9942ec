"""The scaling benchmark: features of the promised spectrum, and honest projections."""

import json

import numpy as np
import pytest

from benchmarks.scaling import ranks
from benchmarks.scaling.__main__ import LARGEST, cases, project, slices
from benchmarks.scaling.features import Synthetic
from benchmarks.scaling.measure import METHODS, Case, in_fresh_process, measure
from benchmarks.scaling.plots import draw
from benchmarks.scaling.tables import processes_table, scaling_table


def test_features_have_the_promised_spectrum():
    source = Synthetic(512)
    rows = np.concatenate(list(source.blocks(3000)))
    assert rows.shape == (3000, 512)
    assert rows.dtype == np.float32
    eigenvalues = np.linalg.eigvalsh(np.cov(rows.T))[::-1][:4]
    np.testing.assert_allclose(eigenvalues, [1, 1 / 2, 1 / 3, 1 / 4], rtol=0.1)
    best = (source.basis / np.linalg.norm(source.basis, axis=1, keepdims=True))[:10]
    assert source.captured(best) == pytest.approx(source.best(10), rel=1e-4)
    first = next(source.blocks(300))
    np.testing.assert_array_equal(first, rows[:256])  # the same however many follow


@pytest.mark.parametrize("route", METHODS)
def test_every_route_is_measured(route):
    found = measure(Case("rows", route, 300, 256, 8))
    assert found["seconds"] > 0
    assert found["peak_mib"] >= found["before_mib"] > 0
    assert found["best"] - 0.1 < found["captured"] <= found["best"]


def test_a_case_that_fails_is_a_row_that_says_so():
    found = in_fresh_process(Case("rows", "pca", 1, 256, 1))
    assert "at least 2 different ones are needed" in found["failed"]


def test_a_process_measures_a_fit_of_real_photos(category, capsys):
    ranks.main(category)
    found = json.loads(capsys.readouterr().out)
    assert found["photos"] == 24
    assert found["gather_seconds"] > 0
    assert found["learn_seconds"] > 0


def row(**given):
    usual = {
        "sweep": "slices", "route": "incremental", "rows": 1000, "dimension": LARGEST,
        "components": 64, "seconds": 10.0, "peak_mib": 3000.0, "before_mib": 700.0,
        "captured": 0.7, "best": 0.72,
    }  # fmt: skip
    return usual | given


def test_the_largest_case_is_projected_and_marked(tmp_path):
    sliced = [row(rows=n, seconds=5 + n / 100) for n in (1000, 2000, 4000)]
    found = project(sliced)
    assert found["projection"] is True
    assert found["seconds"] == pytest.approx(5 + 10**4)
    assert found["slope_ratio"] == pytest.approx(1)
    assert project([*sliced[:2], row(failed="killed")]) is None
    report = {"rows": [*sliced, row(failed="no memory")], "projection": found}
    (tmp_path / "scaling.json").write_text(json.dumps(report))
    text = scaling_table(tmp_path)
    assert "**Projection, not measured:** 1 000 000 rows of 65 536 features (262 GB)" in text
    assert "failed: no memory" in text
    assert processes_table(tmp_path) == "Not measured yet."


def test_sweeps_reach_what_they_promise():
    rows = [case.rows for case in cases(quick=False) if case.sweep == "rows"]
    assert (min(rows), max(rows)) == (100, 10**6)
    assert all(case.components < case.rows for case in cases(quick=True))
    assert all(case.dimension == LARGEST for case in slices(quick=True))


def test_pictures_are_small_and_stay_the_same(tmp_path):
    rows = [
        row(sweep="rows", rows=n, route=r, seconds=n / 100) for n in (100, 1000) for r in METHODS
    ]
    rows += [
        {"sweep": "processes", "processes": n, "photos": 60, "gather_seconds": 8 / n}
        for n in (1, 2)
    ]
    first, again = (draw({"rows": rows}, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == ["scaling-rows.svg", "scaling-processes.svg"]
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_size < 200_000
