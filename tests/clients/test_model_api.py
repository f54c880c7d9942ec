"""Intel's Model API runs our files as its page says."""

import dataclasses

import cv2
import numpy as np
import pytest

from fre_edge import FitOptions
from fre_export import ExportOptions, export
from fre_runtime import Detector
from fre_runtime.geometry import View
from fre_runtime.image import encode_image

RECORD = "[result.pred_label, result.pred_score, result.anomaly_map, result.pred_mask]"
AS_TAKEN = "result = model(cv2.imread('photo.png'))"
SHORT = """
import cv2
from model_api.models import Model
model = Model.create_model("model/openvino/model.xml")
"""


@pytest.fixture(scope="module")
def model_api(page):
    return page("model-api.md")


@pytest.fixture(scope="module")
def python(venv, model_api):
    return venv("model-api", *model_api.requirements, "onnx==1.23.2")


@pytest.mark.parametrize("flavour", ["golden_float_model", "golden_model"])
@pytest.mark.parametrize("file", ["openvino/model.xml", "model.onnx"])
def test_the_page_gives_our_scores(flavour, file, python, model_api, follow, photos, request):
    model = request.getfixturevalue(flavour)
    blocks = [b.replace("openvino/model.xml", file) for b in model_api.blocks("python")]
    paths = [*photos["exact"], *photos["camera"]]
    answers, _ = follow(python, blocks, model, paths, RECORD)
    detector = Detector(model, "openvino")
    for (label, score, anomaly_map, mask), path in zip(answers, paths, strict=True):
        ours = detector(path)
        assert score == pytest.approx(ours.score, abs=1e-4)
        assert label == str(ours.is_anomalous)
        np.testing.assert_allclose(anomaly_map, ours.map_at(256, 256) * 255, atol=2)
        expected = cv2.resize((ours.native_map > 0.5).astype(np.uint8), (256, 256))
        assert np.mean(np.array(mask) != expected) < 1e-3
    assert {answer[0] for answer in answers} == {"True", "False"}


def test_photos_of_another_size_are_a_little_off_and_the_map_has_their_size(
    python, model_api, follow, photos, golden_float_model
):
    blocks = [model_api.blocks("python")[0], AS_TAKEN]
    paths = [*photos["camera"], *photos["large"]]
    answers, _ = follow(python, blocks, golden_float_model, paths, RECORD)
    detector = Detector(golden_float_model, "openvino")
    for (label, score, anomaly_map, mask), path in zip(answers, paths, strict=True):
        ours = detector(path)
        assert score == pytest.approx(ours.score, abs=0.03)
        assert label == str(ours.is_anomalous)
        assert np.shape(anomaly_map) == np.shape(mask) == ours.image_size
        np.testing.assert_allclose(anomaly_map, ours.anomaly_map * 255, atol=20)


def test_the_short_form_finds_every_key_that_it_wants(python, follow, photos, golden_float_model):
    probes = {
        "type": "type(model).__name__",
        "scale": "model.params.scale_values",
        "mean": "model.params.mean_values",
        "reverse": "model.params.reverse_input_channels",
        "resize": "model.params.resize_type",
        "labels": "model.params.labels",
        "task": "model.params.task",
        "thresholds": "[model.params.image_threshold, model.params.pixel_threshold]",
        "normalisation": "model.params.normalization_scale",
        "size": "[model.params.orig_height, model.params.orig_width]",
    }
    answers, found = follow(
        python, [SHORT, AS_TAKEN], golden_float_model, photos["camera"], RECORD, probes
    )
    assert found == {
        "type": "AnomalyDetection",
        "scale": [255, 255, 255],
        "mean": [0, 0, 0],
        "reverse": True,
        "resize": "standard",
        "labels": ["Good", "Anomalous"],
        "task": "segmentation",
        "thresholds": [0.5, 0.5],
        "normalisation": 1.0,
        "size": [256, 256],
    }
    detector = Detector(golden_float_model, "openvino")
    for (label, score, *_), path in zip(answers, photos["camera"], strict=True):
        ours = detector(path)  # its precision is the processor's choice, so not the very same
        assert score == pytest.approx(ours.score, abs=0.05)
        assert label == str(ours.is_anomalous)


def test_thresholds_and_normalisation_are_not_applied_a_second_time(
    python, model_api, follow, photos, golden_float_model
):
    other = {"image_threshold": 0.9, "pixel_threshold": 0.9, "normalization_scale": 7.0}
    first, second = model_api.blocks("python")
    changed = first.replace(
        "create_model(adapter)", f"create_model(adapter, configuration={other})"
    )
    assert changed != first
    a, b = (
        follow(python, [block, second], golden_float_model, photos["exact"], RECORD)[0]
        for block in (first, changed)
    )
    assert a == b


@pytest.fixture(scope="module", params=["image[..., :1]", "image[..., [0, 1, 2, 0]]"])
def wrong(request, python, model_api, follow, photos, golden_float_model):
    """What is given wrongly, as the page's table has it; last one channel, or four."""
    probes = {
        "right": "model(image).pred_score",
        "rgb": "model(image[..., ::-1]).pred_score",
        "0..255": "model(image.astype('float32')).pred_score",
        "0..1": "model((image / 255).astype('float32')).pred_score",
        "black": "model(image // 255).pred_score",
        "channels": f"model({request.param}).pred_score",
        "afterwards": "model(image).pred_score",
    }
    coloured = photos["exact"][-1]
    blocks = model_api.blocks("python")
    return follow(python, blocks, golden_float_model, [coloured], RECORD, probes)[1]


def test_wrong_input_gives_what_the_page_says(wrong):
    assert wrong["rgb"] != pytest.approx(wrong["right"], abs=1e-3)
    assert wrong["0..255"] == pytest.approx(wrong["right"], abs=1e-6)
    assert wrong["0..1"] == pytest.approx(wrong["black"], abs=1e-3)
    assert wrong["channels"].startswith("RuntimeError")
    assert wrong["afterwards"].startswith("RuntimeError")


def test_a_model_that_keeps_the_aspect_pads_in_model_api_too(
    python, model_api, follow, category, make_photo, tmp_path
):
    options = FitOptions(
        "resnet18", ("layer1",), weights="random", size=(64, 64), pool=2, groups="none", fpr=0.05
    )
    options = dataclasses.replace(options, view=View(aspect="keep"))
    model = export(category, tmp_path / "keep", options, ExportOptions(io="float"))
    wide = tmp_path / "wide.png"  # half as high as the input, so that nothing is interpolated
    wide.write_bytes(encode_image(make_photo(5, 32, 64), ".png"))
    blocks = [model_api.blocks("python")[0], AS_TAKEN]
    ((label, score, *_),), _ = follow(python, blocks, model, [wide], RECORD)
    ours = Detector(model, "openvino")(wide)
    assert score == pytest.approx(ours.score, abs=1e-4)
    assert label == str(ours.is_anomalous)
