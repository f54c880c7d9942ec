import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from benchmarks.quality import __main__ as command
from benchmarks.quality import (
    choose,
    features,
    labels,
    painted,
    plots,
    published,
    shipped,
    summary,
    sweeps,
)
from benchmarks.quality.data import Category, mvtec_categories
from benchmarks.quality.splits import (
    given,
    lay_out,
)
from fre_edge import FitOptions
from fre_runtime import Detector
from fre_runtime.commands.common import run_command
from fre_runtime.errors import DataError
from fre_runtime.evaluation import evaluate
from tests.conftest import TINY


def test_categories_come_in_the_order_of_the_published_tables(tmp_path):
    for name in ("zipper", "own_part", "wood", "carpet", "bottle"):
        (tmp_path / name / "train" / "good").mkdir(parents=True)
        (tmp_path / name / "test").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "license.txt").touch()
    found, missing = mvtec_categories(tmp_path)
    assert list(found) == ["carpet", "wood", "bottle", "zipper", "own_part"]
    assert missing == [
        "grid", "leather", "tile", "cable", "capsule", "hazelnut", "metal_nut", "pill", "screw",
        "toothbrush", "transistor",
    ]  # fmt: skip
    for wrong in (tmp_path / "notes", tmp_path / "nowhere"):
        with pytest.raises(DataError, match="holds no category"):
            mvtec_categories(wrong)


def test_a_category_that_fails_is_named_and_the_others_go_on(tmp_path, monkeypatch, row):
    for name in ("carpet", "grid"):
        (tmp_path / name / "train" / "good").mkdir(parents=True)
        (tmp_path / name / "test").mkdir()

    def rows_of(name, seed, folder):
        if name == "carpet":
            raise shipped.CommandError(f"fre-export {folder}: holds no file")
        return [row("grid", 0, 0.9)]

    monkeypatch.setattr(shipped, "rows_of", rows_of)
    report = shipped.measure_mvtec(tmp_path)
    assert report["failed"] == {"carpet": "fre-export carpet: holds no file"}
    assert [found["data"] for found in report["results"]] == ["grid"]


def test_spread_leaves_out_what_is_missing():
    assert summary.spread([None, None]) is None
    assert summary.spread([0.5]) == {"mean": 0.5, "std": 0.0, "min": 0.5, "max": 0.5, "n": 1}
    found = summary.spread([0.8, None, 0.9, 1.0])
    assert found == pytest.approx({"mean": 0.9, "std": 0.1, "min": 0.8, "max": 1.0, "n": 3})


def test_draws_are_summed_up_by_data_set_and_kind(row):
    kinds = [{"dent": {"image_auroc": a, "n": 4}} for a in (0.7, 0.9)]
    kinds[0]["dent"]["aupro"] = 0.5
    rows = [row("a", seed, area, kinds[seed]) for seed, area in enumerate((0.8, 0.9))]
    rows.append(row("b", 0, 0.6))
    a, b = summary.summarise(rows)
    assert (a["data"], a["seeds"], b["seeds"]) == ("a", [0, 1], [0])
    assert a["image_auroc"]["mean"] == pytest.approx(0.85)
    assert a["aupro"] is None
    assert a["by_kind"]["dent"]["image_auroc"]["mean"] == pytest.approx(0.8)
    assert a["by_kind"]["dent"]["aupro"]["n"] == 1
    assert b["by_kind"] == {}


def test_kinds_are_held_against_all_good_photos():
    def entry(raw, kind):
        return {"raw": raw, "kind": kind, "label": kind != "good", "state": "good"}

    scores = {
        str(i): entry(raw, kind)
        for i, (raw, kind) in enumerate(
            [(1, "good"), (3, "good"), (2, "dent"), (4, "dent"), (5, "scratch")]
        )
    }
    found = shipped.kinds_of(scores)
    assert found["dent"]["image_auroc"] == 0.75
    assert found["scratch"] == {"image_auroc": 1.0, "image_ap": 1.0, "image_f1_max": 1.0, "n": 1}
    assert shipped.kinds_of({k: v for k, v in scores.items() if v["kind"] != "scratch"}) == {}


def test_engines_are_compared_photo_by_photo():
    one = {"scores": {"a": {"raw": 2.0, "state": "good"}, "b": {"raw": 4.0, "state": "good"}}}
    other = {"scores": {"a": {"raw": 2.0, "state": "good"}, "b": {"raw": 4.1, "state": "bad"}}}
    assert shipped.agreement_of([one, other]) == {"raw_score": pytest.approx(0.025), "labels": 1}
    assert shipped.agreement_of([one]) == {"raw_score": 0.0, "labels": 0}


def test_every_published_figure_has_a_source_and_means_agree():
    held = json.loads(published.FILE.read_text(encoding="utf-8"))
    rows = [published.Published(**one) for one in held["rows"]]
    assert {one.source for one in rows} == set(held["sources"])
    for source in held["sources"].values():
        assert source.keys() == {"citation", "url", "by"}
        assert source["url"].startswith("https://")
    keys = [(one.data, one.metric, one.title) for one in rows]
    assert len(set(keys)) == len(keys)
    for one in rows:
        if one.categories:
            assert one.categories.keys() == {*published.TEXTURES, *published.OBJECTS}
            assert np.mean(list(one.categories.values())) == pytest.approx(one.mean, abs=6e-4)


def test_a_published_figure_in_percent_is_refused():
    with pytest.raises(ValueError, match=r"tile: 98\.5 is not in 0\.\.1"):
        published.Published("M", "", "mvtec", "image_auroc", "s", 0.98, {"tile": 98.5})
    with pytest.raises(ValueError, match="metric 'auc'"):
        published.Published("M", "", "mvtec", "auc", "s", 0.98)


@pytest.fixture
def bench(category, tmp_path):
    return sweeps.Bench(Category("tiny", category, given(category)), features.Store(tmp_path))


def test_a_sweep_gives_the_figures_of_the_shipped_path(bench, uint8_model, category):
    split = bench.category.split
    found = sweeps.figures(bench, *bench.scored(bench.fitted(TINY, split), split))
    shipped_figures = evaluate(Detector(uint8_model), category, quiet=True)
    for name, value in found.items():
        assert value == pytest.approx(getattr(shipped_figures, name), abs=1e-4), name


def test_a_defective_photo_that_is_also_a_good_one_is_found_and_costs(
    category, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(labels, "DEFAULT", TINY)
    folder = lay_out(given(category), category, tmp_path / "parts")
    trained = given(folder).train[3]
    wrong = folder / "test" / "dent"
    wrong.mkdir()
    darker = (cv2.imread(str(trained)) * 0.97).astype(np.uint8)
    cv2.imwrite(str(wrong / "also_good.png"), darker)
    (wrong / "the_very_same.png").write_bytes(trained.read_bytes())
    parts = Category("parts", folder, given(folder))
    report = labels.measure([parts], 1, features.Store(tmp_path / "cache"))
    [found] = report["results"]
    assert (found["data"], found["seed"]) == ("parts", 0)
    assert (found["copies"], found["defective"]) == (1, 9)
    assert found["unread"] == ["test/dent/the_very_same.png"]
    [pair] = found["pairs"]
    assert pair == {
        "defective": "test/dent/also_good.png",
        "good": f"train/good/{trained.name}",
        "cosine": pytest.approx(1, abs=0.1),
    }
    # A photo that was trained on scores below every new one, and nine defects share the loss.
    assert found["image_auroc_of_copies"] == 0
    assert found["image_auroc_without"] == pytest.approx(9 / 8 * found["image_auroc"])
    said = capsys.readouterr().out
    assert "parts: 1 of 9 defective photos" in said
    assert f"test/dent/also_good.png  train/good/{trained.name}" in said
    assert "the very picture of another photo: test/dent/the_very_same.png" in said


def test_the_most_alike_is_found_by_angle_around_the_mean_of_the_training_photos():
    trained = np.array([[3, 1], [-1, 1], [1, 3], [1, -1]], np.float32)  # their mean is (1, 1)
    tested = np.array([[101, 1], [1, 1.5], [2, 2], [1, 1]], np.float32)
    nearest, cosines = labels.most_alike(trained, tested)
    assert nearest.tolist()[:2] == [0, 2]
    assert cosines == pytest.approx([1, 1, 0.5**0.5, 0])


def test_a_rank_correlation_that_does_not_exist_is_not_made_up():
    rows = [{"data": "a", "variance": v, "separation": v, "image_auroc": 1.0} for v in (0.5, 0.9)]
    assert choose.summary("a", rows)["rank_correlation"] is None
    rows[1]["image_auroc"] = 0.9
    assert choose.summary("a", rows)["rank_correlation"] == pytest.approx(-1)


@pytest.mark.parametrize("seed", range(8))
def test_a_painted_defect_changes_a_part_of_the_photo_and_no_more(seed):
    photo = np.random.default_rng(9).integers(90, 160, (128, 96, 3), np.uint8)
    before = photo.copy()
    marked = painted.paint(photo, np.random.default_rng(seed))
    assert (marked.shape, marked.dtype) == (photo.shape, np.uint8)
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(marked, painted.paint(photo, np.random.default_rng(seed)))
    changed = (marked != photo).any(2).mean()
    assert 0 < changed < 4 * painted.AREA[1]


def test_separation_is_the_rise_of_the_log_score_in_spreads_of_good_photos():
    clean = np.exp(np.array([1.0, 3.0, 1.0, 3.0]))
    assert choose.separation(clean, clean * np.e**2) == pytest.approx(2)
    assert choose.separation(clean**2, clean**2) == 0
    assert choose.separation(clean, clean / np.e) == pytest.approx(-1)


def test_a_choice_by_painted_defects_is_held_against_test_labels(category, tmp_path, monkeypatch):
    for module in (choose, sweeps):
        monkeypatch.setattr(module, "DEFAULT", TINY)
    monkeypatch.setattr(sweeps, "TAPS", TINY.layers)
    tiny = Category("tiny", category, given(category))
    store = features.Store(tmp_path / "cache")
    report = choose.measure([tiny], store, quick=True)
    [summed] = report["summary"]
    rows = report["results"]
    assert [row["variance"] for row in rows] == list(sweeps.VARIANCES[::4])
    assert all(row["separation"] > 0 for row in rows)
    assert max(rows, key=lambda row: row["separation"])["variance"] == summed["chosen"]
    bench = sweeps.Bench(tiny, store)
    for row in rows:
        fitted = bench.fitted(replace(TINY, variance=row["variance"]), tiny.split)
        area = sweeps.figures(bench, *bench.scored(fitted, tiny.split))["image_auroc"]
        assert row["image_auroc"] == area


def test_a_sweep_that_is_run_again_leaves_the_others_as_they_were():
    old = {
        "dates": {"variance": "monday", "pool": "monday", "cut": "monday"},
        "results": [{"sweep": "variance", "k": 1}, {"sweep": "pool", "k": 2}],
        "cuts": [{"cut": 0.5}],
    }
    new = {
        "dates": {"pool": "friday"},
        "results": [{"sweep": "pool", "k": 3}],
        "cuts": [],
    }
    assert sweeps.joined(old, new) == {
        "dates": {"variance": "monday", "pool": "friday", "cut": "monday"},
        "results": [{"sweep": "variance", "k": 1}, {"sweep": "pool", "k": 3}],
        "cuts": [{"cut": 0.5}],
    }


def test_features_are_extracted_once_and_the_least_used_dropped(bench, monkeypatch):
    calls = []
    extract = features.extract
    monkeypatch.setattr(features, "extract", lambda *a: calls.append(a) or extract(*a))
    photos = bench.category.split.train
    base = features.template(TINY, photos)
    store = features.Store(bench.store.folder)
    first = store.get(base, photos)
    again = store.get(base, photos)
    assert len(calls) == 1
    np.testing.assert_array_equal(first.layers["layer1"], again.layers["layer1"])
    size = sum(layer.nbytes for layer in first.layers.values())
    small = replace(store, limit=int(1.5 * size))
    small.get(base, photos[:-1])
    assert len(list(store.folder.iterdir())) == 1
    store.get(base, photos)
    assert len(calls) == 3


def test_points_change_one_option_and_follow_what_the_fit_offers(monkeypatch):
    for name, some in sweeps.points().items():
        also = sweeps.UNLIMITED if name == "variance" else {}
        assert all(point.changes.keys() == {name, *also} for point in some)
        for point in some:
            point.options.check()
    assert "method" not in sweeps.points() or hasattr(FitOptions(), "method")
    quick = sweeps.points(quick=True)
    assert all(len(quick[name]) <= len(some) for name, some in sweeps.points().items())


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["rows", "nowhere"], 1, "nowhere: has no train/good and test/good"),
        (["rows", "elpv_mono=CATEGORY"], 1, "elpv_mono: is the name of two categories"),
        (["rows", "--grouped", "CATEGORY", "no.csv"], 1, "no.csv: cannot be read as CSV"),
        (["labels", "nowhere"], 1, "nowhere: has no train/good and test/good"),
        (["mvtec", "nowhere"], 1, "nowhere: holds no category"),
        (["sweeps", "--only", "variance,colour"], 2, "sweep 'colour' does not exist; choose"),
        (["plots", "--results", "nowhere"], 1, "quality-sweeps.json: cannot be read"),
    ],
)
def test_misuse_is_one_clear_line(argv, code, said, category, capsys):
    filled = [part.replace("CATEGORY", str(category)) for part in argv]
    assert run_command(command, filled) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_pictures_are_the_same_for_the_same_figures(tmp_path):
    def point(sweep, label, seed, area, aupro):
        figures = {"image_auroc": area, "pixel_auroc": None, "aupro": aupro, "k": [3, 4]}
        return {"sweep": sweep, "label": label, "data": "parts", "seed": seed, **figures}

    rows = [
        point("variance", value, seed, 0.9 + seed / 100, None)
        for value in ("0.5", "0.9")
        for seed in (0, 1)
    ]
    rows += [point("score", score, 0, 0.9, 0.5) for score in ("p3", "sum")]
    report = {"results": rows, "default": {"variance": "0.9", "score": "p3"}}
    first = [path.read_bytes() for path in plots.draw(report, tmp_path / "a")]
    second = plots.draw(report, tmp_path / "b")
    assert [path.name for path in second] == ["quality-variance.svg", "quality-score.svg"]
    assert first == [path.read_bytes() for path in second]
    score = second[1].read_text()
    assert "image AUROC" in score
    assert "AUPRO" not in score  # the same for both choices: no panel


def test_axes_do_not_blow_up_small_differences():
    low, high = plots.limits([0.9651, 0.9653])
    assert low < 0.95
    assert high > 1
