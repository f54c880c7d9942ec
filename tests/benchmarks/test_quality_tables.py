import json

import pytest

from benchmarks.quality import choose, published, published_tables, summary, tables


@pytest.fixture
def results(row, tmp_path):
    """Two draws of a data set that leaks and of its honest twin; sweeps of both."""
    kinds = {"dent": {"image_auroc": 0.7, "image_ap": 0.8, "image_f1_max": 0.9, "n": 5}}
    rows = [
        row("magnetic_tile", 0, 0.99, kinds, aupro=0.7, detection_rate=0.5, false_reject_rate=0.1),
        row("magnetic_tile", 1, 0.97, kinds, aupro=0.6, detection_rate=0.6, false_reject_rate=0.0),
        row("honest", 0, 0.90),
        row("honest", 1, 0.88),
        row("honest", 1, 0.882, engine="onnxruntime"),
    ]
    report = {
        "seeds": 2,
        "data": [
            {"data": "magnetic_tile", "train": 8, "test_good": 4, "groups": None},
            {"data": "honest", "train": 8, "test_good": 4, "groups": 3},
        ],
        "results": rows,
        "summary": summary.summarise(rows),
        "leaks": [
            {"data": "magnetic_tile", "honest": "honest", "seen_in_training": 3, "test_good": 4}
        ],
    }
    (tmp_path / "quality.json").write_text(json.dumps(report))
    return tmp_path


def test_the_headline_gives_draw_0_and_the_mean_and_says_what_leaks(results):
    text = tables.headline_table(results)
    assert (
        "| `magnetic_tile`, drawn at random | 0.9900 | 0.9800 (0.9700-0.9900) | 0.992: **missed** "
        "| - | 0.650 | 5.0% | 55.0% |" in text
    )
    assert "| `honest`, 3 groups drawn whole | 0.9000 | 0.8900 (0.8800-0.9000) | - |" in text
    assert "3 of its 4 good test photos (75%)" in text
    assert "falls from 0.9800 to 0.8900, by 0.0900" in text


@pytest.mark.parametrize(
    ("given", "mean", "said"),
    [
        (0.93, 0.94, "0.93: met"),
        (0.95, 0.92, "0.93: given split met, mean **missed**"),
        (0.92, 0.95, "0.93: given split **missed**, mean met"),
        (0.92, 0.92, "0.93: **missed**"),
    ],
)
def test_a_target_is_held_against_the_given_split_and_the_mean(given, mean, said):
    assert tables.against_target("magnetic_tile_grouped", given, mean) == said


def test_contradicting_labels_are_counted_and_left_out_of_their_own_table_only(tmp_path):
    def row(data, seed, copies, area, alone):
        found = {"data": data, "seed": seed, "defective": 40, "good": 10, "good_copies": 2}
        areas = {"image_auroc": area, "image_auroc_without": area + 0.01}
        areas |= {"image_auroc_without_any": 0.5, "image_auroc_of_copies": alone}
        return {**found, "copies": copies, **areas}

    rows = [row("a", 0, 3, 0.9, 0.2), row("a", 1, 0, 0.8, None), row("b", 0, 0, 0.7, None)]
    report = {"cut": 0.8, "seeds": 2, "results": rows}
    (tmp_path / "quality-labels.json").write_text(json.dumps(report))
    text = tables.labels_table(tmp_path)
    assert text.splitlines()[2:5] == [
        "| `a`, given split | 3 of 40 | 0.9000 | 0.9100 | 0.2000 | 2 of 10 | 0.5000 |",
        "| `a`, mean of 2 draws | 1.5 of 40 | 0.8500 | 0.8600 | 0.2000 | 2 of 10 | 0.5000 |",
        "| `b`, given split | 0 of 40 | 0.7000 | 0.7100 | - | 2 of 10 | 0.5000 |",
    ]
    assert "a cosine above 0.8" in text
    assert "nothing was left out of them" in text


def test_a_choice_without_labels_stands_beside_what_labels_say(tmp_path):
    rows = [
        {"data": "a", "variance": v, "separation": s, "image_auroc": area}
        for v, s, area in ((0.5, 1.0, 0.7), (0.8, 3.0, 0.8), (0.9, 2.0, 0.9))
    ]
    report = {"default": 0.9, "results": rows, "summary": [choose.summary("a", rows)]}
    (tmp_path / "quality-choice.json").write_text(json.dumps(report))
    text = tables.choice_table(tmp_path)
    assert text.splitlines()[2:5] == [
        "| 0.5 | 1.00 | 0.7000 |",
        "| 0.8 | **3.00** | 0.8000 |",
        "| **0.9** | 2.00 | **0.9000** |",
    ]
    assert text.endswith(
        "* `a`: chosen 0.8, with an image AUROC of 0.8000; test labels would choose 0.9, with "
        "0.9000; the default has 0.9000; rank correlation of the two columns 0.50."
    )


def test_every_metric_has_its_spread(results):
    text = tables.rows_table(results)
    assert "0.9800 ± 0.0141 (0.9700-0.9900)" in text
    assert "55.0 ± 7.1% (50.0-60.0)" in text
    assert "ONNX Runtime's differ by at most 2e-03." in text


def test_kinds_of_defects_have_rows_of_their_own(results):
    text = tables.kinds_table(results)
    assert "| `magnetic_tile` | dent | 5 | 0.7000 ± 0.0000 (0.7000-0.7000) |" in text


def test_ours_stands_beside_published_figures_with_their_sources(results):
    text = published_tables.published_table(results)
    lines = text.splitlines()
    assert "| `magnetic_tile` | **ours** | **0.9900** |" in lines
    assert "| `magnetic_tile` | GANomaly | 0.766 |" in lines
    assert "honest" not in text
    assert any(line.startswith("* GANomaly, 1-NN") and "arxiv.org" in line for line in lines)


def test_mvtec_without_photos_shows_the_published_figures_alone(tmp_path):
    text = published_tables.mvtec_table(tmp_path)
    assert text.startswith("Not measured here")
    assert "| ours |" not in text
    first = next(line for line in text.splitlines() if line.startswith("| carpet |"))
    assert "0.986" in first  # PatchCore


def test_mvtec_is_in_the_order_of_the_published_tables_with_means(row, tmp_path):
    rows = [row(name, 0, area) for name, area in (("zipper", 0.7), ("wood", 0.8), ("grid", 0.6))]
    report = {"results": rows, "missing": ["tile"], "failed": {"pill": "holds no file"}}
    (tmp_path / "quality-mvtec.json").write_text(json.dumps(report))
    text = published_tables.mvtec_table(tmp_path)
    ours = [line.split(" | ")[:2] for line in text.split("\n\n")[0].splitlines()[2:]]
    assert ours == [
        ["| grid", "0.600"],
        ["| wood", "0.800"],
        ["| *textures*", "0.700"],
        ["| zipper", "0.700"],
        ["| *objects*", "0.700"],
        ["| **mean**", "0.700"],
    ]
    assert "Not there: `tile`." in text
    assert "Failed and left out: `pill` (holds no file)." in text
    head = next(line for line in text.splitlines() if line.startswith("| category | ours |"))
    for other in published.published("mvtec"):
        assert other.title in head


def test_sweeps_mark_the_default_and_average_the_draws(tmp_path):
    def point(sweep, label, seed, area):
        figures = {"image_auroc": area, "pixel_auroc": None, "aupro": None, "k": [3, 4]}
        return {"sweep": sweep, "label": label, "data": "a", "seed": seed, **figures}

    report = {
        "default": {"variance": "0.9", "score": "p3"},
        "results": [
            point("variance", "0.5", 0, 0.7),
            point("variance", "0.9", 0, 0.8),
            point("variance", "0.9", 1, 0.9),
            point("score", "p3", 0, 0.8),
        ],
        "cuts": [
            {"data": "a", "cut": cut, "scenes": 5, "photos": 9, "fpr": rate,
             "false_reject_rate": rate, "detection_rate": 1.0}
            for cut in (None, 0.65) for rate in (0.01, 0.05)
        ],
    }  # fmt: skip
    (tmp_path / "quality-sweeps.json").write_text(json.dumps(report))
    text = tables.sweeps_table(tmp_path)
    assert "| variance | **0.9** | 0.8500 ± 0.0707 (0.8000-0.9000) | 7 |" in text
    assert "| variance | 0.5 | 0.7000 | 7 |" in text
    assert "| score | **p3** | 0.8000 | 7 |" in text
    assert text.endswith("over as many draws of the split: 2 draws (variance), 1 draw (score).")
    report["results"] = report["results"][1:3]
    (tmp_path / "quality-sweeps.json").write_text(json.dumps(report))
    assert tables.sweeps_table(tmp_path).endswith("over 2 draws of the split.")
    cuts = tables.cuts_table(tmp_path).splitlines()
    assert cuts[-2:] == [
        "| no groups | 5 of 9 | 1.0% | 5.0% |",
        "| 0.65 | 5 of 9 | 1.0% | 5.0% |",
    ]
