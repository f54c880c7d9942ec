import dataclasses
import json
import logging
import re
import shutil
import sys

import numpy as np
import pytest

from fre_export.report import ODDEST, _oddest, training_page
from fre_runtime.model_dir import REPORT


@pytest.fixture
def text(uint8_model):
    return (uint8_model.path / REPORT).read_text(encoding="utf-8")


def test_the_model_directory_holds_a_report(uint8_model, tiny_fit, text):
    assert REPORT in json.loads((uint8_model.path / "MANIFEST.json").read_text())["files"]
    for words in (
        f"<b>{len(tiny_fit.photos)}</b>",
        f"{tiny_fit.calibration.image.value:.4g}",
        "Histogram of the held-out scores of 24 good photos",
        "openvino",
    ):
        assert words in text
    assert text.count("<figcaption>") == ODDEST
    assert re.findall("(?:src|href)=.(?!data:|#)", text) == []
    assert len(text) < 400_000


def test_shows_the_highest_held_out_score_of_each_scene(tiny_fit, text):
    worst = tiny_fit.photos[int(np.argmax(tiny_fit.held_out_scores))]
    first = text[text.index("<figcaption>") :][:300]
    assert worst.name in first
    shown = _oddest(tiny_fit)
    scores = tiny_fit.held_out_scores[shown]
    assert list(scores) == sorted(scores, reverse=True)
    assert len(set(tiny_fit.groups[shown])) == len(shown)


def test_without_its_libraries_there_is_one_clear_line(uint8_model, tiny_fit, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with caplog.at_level(logging.WARNING):
        assert training_page(uint8_model.card, tiny_fit) is None
    (record,) = caplog.records
    assert "no report is written: a report needs jinja2" in record.getMessage()
    assert "pip install 'fre-edge[report]'" in record.getMessage()


def test_names_of_photos_stay_text(uint8_model, tiny_fit, tmp_path):
    photo = tmp_path / '"><script>alert(1).png'
    shutil.copy(tiny_fit.photos[0], photo)
    fitted = dataclasses.replace(tiny_fit, photos=[photo] * len(tiny_fit.photos))
    text = training_page(uint8_model.card, fitted)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1).png" in text
