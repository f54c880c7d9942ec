"""The first convolution on the rows of the photo."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fre_export.passes.convolve_rows import convolve_rows
from tests.export.conftest import small_graph

HEIGHT, WIDTH = 11, 14


def graph(*, weight=(8, 3, 3, 3), scales=(0.5, 0.5, 0.5), zeros=(127, 127, 127), **options):
    rng = np.random.default_rng(5)
    nodes = [
        helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["turned", "scale", "zero"], ["x"], axis=1),
        helper.make_node("Conv", ["x", "weight", "bias"], ["y"], **options),
    ]
    constants = {
        "scale": np.array(scales, np.float32),
        "zero": np.array(zeros, np.uint8),
        "weight": rng.normal(size=weight).astype(np.float32),
        "bias": rng.normal(size=weight[0]).astype(np.float32),
    }
    image = {"image": (TensorProto.UINT8, [None, HEIGHT, WIDTH, 3])}
    return small_graph(nodes, constants, image, ["y"])


def run(model, images):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": images})[0]


def kinds(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 0, 1, 1], "strides": [2, 2]},
        {"weight": (8, 3, 7, 7), "pads": [3, 3, 3, 3], "strides": [2, 2]},
        {"weight": (1, 3, 5, 2), "pads": [0, 2, 1, 0], "strides": [1, 3]},
        {"weight": (8, 3, 4, 4), "strides": [4, 4]},  # the patches of a transformer
    ],
)
def test_says_the_same(options):
    model = graph(**options)
    images = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)
    expected = run(model, images)
    assert convolve_rows(model.graph)
    assert kinds(model) == ["Reshape", "DequantizeLinear", "Conv"]
    found = run(model, images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert {tensor.name for tensor in model.graph.initializer} == {
        name for node in model.graph.node for name in node.input if name.startswith("rows.")
    } - {"rows.image"} | {"bias"}


@pytest.mark.parametrize(
    "options",
    [
        {"scales": (0.5, 0.5, 0.25)},
        {"zeros": (127, 127, 126)},
        {"dilations": [2, 2]},
        {"group": 3, "weight": (9, 1, 3, 3)},
        {"auto_pad": "SAME_UPPER"},
    ],
)
def test_leaves_what_is_not_the_same_alone(options):
    model = graph(**options)
    before = model.SerializeToString()
    assert not convolve_rows(model.graph)
    assert model.SerializeToString() == before


def test_leaves_what_has_no_zero_point_alone():
    model = graph()
    del model.graph.node[1].input[2]
    assert not convolve_rows(model.graph)


def test_leaves_an_image_alone_that_something_else_looks_at():
    model = graph()
    model.graph.node.append(helper.make_node("Cast", ["turned"], ["seen"], to=TensorProto.FLOAT))
    model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, None))
    assert not convolve_rows(model.graph)
