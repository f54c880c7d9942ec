"""The real backbone on real photos: solar cells of the PyPI package elpv-dataset."""

import numpy as np
import pytest

from fre_edge import FitOptions
from fre_export import export
from fre_runtime import Detector
from fre_runtime.evaluation import evaluate


@pytest.fixture(scope="module")
def model(solar_cells, tmp_path_factory):
    return export(solar_cells, tmp_path_factory.mktemp("real") / "model", FitOptions(fpr=0.05))


@pytest.fixture(scope="module")
def figures(model, solar_cells):
    return {
        engine: evaluate(Detector(model, engine), solar_cells, quiet=True)
        for engine in ("openvino", "onnxruntime")
    }


def test_finds_the_defective_cells(figures):
    found = figures["openvino"]
    assert found.image_auroc > 0.955
    assert found.false_reject_rate <= 0.10
    assert found.detection_rate > 0.6


def test_both_engines_say_the_same(figures):
    a, b = figures["openvino"], figures["onnxruntime"]
    assert a.image_auroc == pytest.approx(b.image_auroc, abs=1e-4)
    assert a.scores.keys() == b.scores.keys()
    raw = np.array([[a.scores[name]["raw"], b.scores[name]["raw"]] for name in a.scores])
    np.testing.assert_allclose(raw[:, 0], raw[:, 1], rtol=1e-4)
    assert [e["state"] for e in a.scores.values()] == [e["state"] for e in b.scores.values()]


def test_parity_was_proved_on_enough_unseen_photos(model):
    parity = model.variant("fp32").parity
    assert parity.images >= 32
    assert parity.source == "photos of the test folder"
    assert max(parity.score_error.values()) < 1e-4
