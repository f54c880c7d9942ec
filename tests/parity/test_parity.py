"""One contract, three implementations: PyTorch, ONNX Runtime, OpenVINO."""

import numpy as np
import pytest
import torch

from fre_runtime.engines import Outputs, open_engine

MODELS = ["uint8_model", "float_model", "max_model"]
ENGINES = ["onnxruntime", "openvino"]


def batch_for(graph, count, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    if graph.io == "uint8":
        return images
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


@pytest.fixture
def module(tiny_fit, max_fit):
    """``module(name)`` gives the PyTorch module of a model fixture."""
    return {
        "uint8_model": tiny_fit.module("uint8"),
        "float_model": tiny_fit.module("float", (64, 64)),
        "max_model": max_fit.module("uint8", (64, 64)),
    }.__getitem__


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_engines_agree_with_pytorch(name, engine, count, module, request):
    model = request.getfixturevalue(name)
    batch = batch_for(model.card.graph, count)
    got = open_engine(model, engine).run(batch)
    with torch.inference_mode():
        expected = Outputs(*(t.numpy() for t in module(name)(torch.from_numpy(batch))))
    calibration = model.variant("fp32").calibration
    np.testing.assert_allclose(
        calibration.image.raw(got.pred_score), calibration.image.raw(expected.pred_score), rtol=1e-4
    )
    maps = calibration.pixel.raw(got.anomaly_map), calibration.pixel.raw(expected.anomaly_map)
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-3 * maps[1].max())
    np.testing.assert_array_equal(got.pred_label, expected.pred_label)
    np.testing.assert_array_equal(got.pred_mask, expected.pred_mask)
    for array, reference in zip(got, expected, strict=True):
        assert array.dtype == reference.dtype
        assert array.shape == reference.shape


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_gets_the_same_answer_alone_and_in_a_batch(engine, uint8_model):
    loaded = open_engine(uint8_model, engine)
    batch = batch_for(uint8_model.card.graph, 5)
    together = loaded.run(batch)
    for i in range(5):
        alone = loaded.run(batch[i : i + 1])
        np.testing.assert_allclose(alone.pred_score[0], together.pred_score[i], rtol=1e-5)
        np.testing.assert_allclose(alone.anomaly_map[0], together.anomaly_map[i], rtol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_pixel_that_is_not_finite_gives_nan_and_is_never_good(engine, value, float_model):
    batch = batch_for(float_model.card.graph, 2)
    batch[1, 0, 5, 5] = value
    outputs = open_engine(float_model, engine).run(batch)
    assert np.isfinite(outputs.pred_score[0])
    assert np.isnan(outputs.pred_score[1])
    assert outputs.pred_label[1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("scale", "offset"), [(255, 0), (2, -1), (4.5, -2.1)], ids=["0..255", "-1..1", "normalised"]
)
def test_floats_of_another_scale_give_nan_and_are_never_good(engine, scale, offset, float_model):
    batch = batch_for(float_model.card.graph, 2)
    batch[1] = batch[1] * scale + offset
    outputs = open_engine(float_model, engine).run(batch)
    assert np.isfinite(outputs.pred_score[0])
    assert np.isnan(outputs.pred_score[1])
    assert outputs.pred_label[1]


@pytest.mark.parametrize("engine", ENGINES)
def test_floats_that_resizing_brought_a_little_outside_are_taken(engine, float_model):
    batch = batch_for(float_model.card.graph, 1) * np.float32(1.6) - np.float32(0.3)
    assert np.isfinite(open_engine(float_model, engine).run(batch).pred_score[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_flavours_agree_on_a_photo(engine, uint8_model, float_model):
    a = open_engine(uint8_model, engine).run(batch_for(uint8_model.card.graph, 2))
    b = open_engine(float_model, engine).run(batch_for(float_model.card.graph, 2))
    np.testing.assert_allclose(a.pred_score, b.pred_score, rtol=1e-4)
