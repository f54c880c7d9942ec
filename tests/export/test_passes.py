"""The rewriting passes: faster graphs that say the same."""

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from fre_export.passes.channels_last import normalise_channels_last
from fre_export.passes.compress_weights import compress_weights
from fre_export.passes.dequantize_input import dequantize_input
from fre_export.passes.sum_squares import sum_squares
from fre_runtime.image import read_image
from tests.export.conftest import small_graph

WHOLE = [127.0, 126.0, 0.0]
IMAGENET = [123.675, 116.28, 103.53]
F32 = {"INFERENCE_PRECISION_HINT": "f32"}
OUTSIDE = [300.0, 127.0, 127.0]
"""Whole-numbered, but no uint8 can hold it."""


def run(model, **inputs):
    onnx.checker.check_model(model, full_check=True)  # also that the order is topological
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, inputs)


def kinds(model):
    return [node.op_type for node in model.graph.node]


def normalising(mean, more=(), outputs=("out", "normal")):
    """``(float(image) - mean) / std``, then a ReLU."""
    nodes = [
        helper.make_node("Transpose", ["image"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["channels_first"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normal"]),
        helper.make_node("Relu", ["normal"], ["out"]),
        *more,
    ]
    constants = {
        "mean": np.reshape(mean, (1, 3, 1, 1)).astype(np.float32),
        "std": np.array([58.395, 57.12, 128.0], np.float32).reshape(1, 3, 1, 1),
    }
    return small_graph(nodes, constants, {"image": (TensorProto.UINT8, [None, 4, 5, 3])}, outputs)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("mean", "nodes"),
    [
        (WHOLE, ["Transpose", "DequantizeLinear", "Relu"]),
        (IMAGENET, ["Transpose", "DequantizeLinear", "Sub", "Relu"]),
        (OUTSIDE, ["Transpose", "DequantizeLinear", "Sub", "Relu"]),
    ],
    ids=["whole", "imagenet", "outside"],
)
def test_normalising_becomes_one_pass_over_the_image(mean, nodes, pixels):
    model = normalising(mean)
    before = run(model, image=pixels)
    assert dequantize_input(model.graph)
    assert kinds(model) == nodes
    assert {"mean", "std"}.isdisjoint(tensor.name for tensor in model.graph.initializer)
    for a, b in zip(before, run(model, image=pixels), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def float_input():
    nodes = [
        helper.make_node("Sub", ["input", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "mean"], ["out"]),
    ]
    shape = (TensorProto.FLOAT, [None, 3, 4, 5])
    mean = np.ones((1, 3, 1, 1), np.float32)
    return small_graph(nodes, {"mean": mean}, {"input": shape}, ["out"])


def seen_elsewhere(value):
    """``value`` is used by another node as well."""
    more = [helper.make_node("Abs", [value], ["other"])]
    return normalising(WHOLE, more, ["out", "other"])


@pytest.mark.parametrize(
    "model",
    [
        float_input(),
        seen_elsewhere("pixels"),
        seen_elsewhere("centred"),
        normalising(WHOLE, outputs=["centred", "out"]),
    ],
    ids=["float input", "cast seen", "difference seen", "difference is an output"],
)
def test_another_beginning_is_left_alone(model):
    before = model.SerializeToString(deterministic=True)
    assert not dequantize_input(model.graph)
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(("name", "first"), [("uint8_model", True), ("float_model", False)])
def test_the_exported_graph_begins_with_it(name, first, request):
    graph = onnx.load(request.getfixturevalue(name).path / "model.onnx").graph
    assert any(node.op_type == "DequantizeLinear" for node in graph.node) is first


def squares(*nodes, outputs=("out",), **constants):
    """A model from x (N, 3, 4)."""
    made = [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes]
    return small_graph(made, constants, {"x": (TensorProto.FLOAT, [None, 3, 4])}, outputs)


AXIS = np.array([1], np.int64)
SQUARE = ("Mul", ["x", "x"], ["square"])


@pytest.mark.parametrize("keepdims", [0, 1, None])
def test_square_and_sum_become_one_node(keepdims):
    attributes = {} if keepdims is None else {"keepdims": keepdims}
    model = squares(SQUARE, ("ReduceSum", ["square", "axes"], ["out"], attributes), axes=AXIS)
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    (before,) = run(model, x=x)
    assert sum_squares(model.graph)
    assert kinds(model) == ["ReduceSumSquare"]
    (after,) = run(model, x=x)
    assert before.shape == after.shape
    np.testing.assert_allclose(before, after, rtol=1e-6)


def test_each_square_is_found_and_the_order_stays_topological():
    model = squares(
        ("Relu", ["x"], ["a"]),
        ("Neg", ["x"], ["n"]),
        ("Mul", ["a", "a"], ["aa"]),
        ("Exp", ["n"], ["b"]),
        ("Mul", ["b", "b"], ["bb"]),
        ("ReduceSum", ["bb", "axes"], ["sb"]),
        ("ReduceSum", ["aa", "axes"], ["sa"]),
        ("Add", ["sa", "sb"], ["out"]),
        axes=AXIS,
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    (before,) = run(model, x=x)
    assert sum_squares(model.graph)
    assert kinds(model).count("ReduceSumSquare") == 2
    assert "Mul" not in kinds(model)
    np.testing.assert_allclose(before, run(model, x=x)[0], rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        squares(
            SQUARE,
            ("ReduceSum", ["square", "axes"], ["out"]),
            outputs=("out", "square"),
            axes=AXIS,
        ),
        squares(
            SQUARE,
            ("ReduceSum", ["square", "axes"], ["sum"]),
            ("Add", ["square", "sum"], ["out"]),
            axes=AXIS,
        ),
        squares(("Neg", ["x"], ["n"]), ("Mul", ["x", "n"], ["square"]),
                ("ReduceSum", ["square", "axes"], ["out"]), axes=AXIS),
        squares(SQUARE, ("ReduceMax", ["square", "axes"], ["out"]), axes=AXIS),
    ],
    ids=["the square is an output", "the square is used twice", "no square", "no sum"],
)  # fmt: skip
def test_what_is_no_sum_of_squares_is_left_alone(model):
    before = model.SerializeToString(deterministic=True)
    assert not sum_squares(model.graph)
    assert model.SerializeToString(deterministic=True) == before


def products(model):
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]


def test_products_with_8_bit_weights_are_turned_and_say_the_same(uint8_model):
    core = openvino.Core()
    plain, turned = (core.read_model(uint8_model.path / "model.onnx") for _ in range(2))
    before = len(products(plain))
    assert compress_weights(turned) == 2 * len(uint8_model.card.layers)  # there and back
    assert len(products(turned)) == before > 2 * len(uint8_model.card.layers)
    compressed = [p for p in products(turned) if eight_bit(p)]
    assert len(compressed) == 2 * len(uint8_model.card.layers)
    assert [o.get_any_name() for o in turned.outputs] == [o.get_any_name() for o in plain.outputs]
    config = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
    image = read_image(uint8_model.path / "golden/image.png")[None]
    expected, got = (core.compile_model(m, "CPU", config)([image]) for m in (plain, turned))
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(got[2], expected[2], rtol=1e-4)
    np.testing.assert_array_equal(got[1], expected[1])


def eight_bit(product):
    """Whether it is ``x @ (convert(q) * scale)^T``, the form that stays compressed."""
    scaled = product.input_value(1).get_node()
    if not product.get_attributes()["transpose_b"] or scaled.get_type_name() != "Multiply":
        return False
    convert = scaled.input_value(0).get_node()
    if convert.get_type_name() != "Convert":
        return False
    return convert.input_value(0).get_element_type() == openvino.Type.i8


def test_products_of_floats_are_left_alone(tmp_path):
    weights = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    onnx.save(squares(("MatMul", ["x", "w"], ["out"]), w=weights), tmp_path / "m.onnx")
    model = openvino.Core().read_model(tmp_path / "m.onnx")
    (before,) = products(model)
    assert compress_weights(model) == 0
    (after,) = products(model)
    assert after.get_friendly_name() == before.get_friendly_name()
    assert after.input_value(1).get_element_type() == openvino.Type.f32


@pytest.mark.parametrize("dequantised", [True, False], ids=["dequantised", "as traced"])
@pytest.mark.parametrize("mean", [WHOLE, IMAGENET], ids=["whole", "imagenet"])
def test_the_image_is_normalised_before_it_is_turned(mean, dequantised, pixels, tmp_path):
    traced = normalising(mean)
    if dequantised:
        assert dequantize_input(traced.graph)
    onnx.save(traced, tmp_path / "m.onnx")
    core = openvino.Core()
    plain, moved = (core.read_model(tmp_path / "m.onnx") for _ in range(2))
    assert normalise_channels_last(moved) >= 2
    (turn,) = (n for n in moved.get_ordered_ops() if n.get_type_name() == "Transpose")
    users = {t.get_node().get_type_name() for t in turn.output(0).get_target_inputs()}
    assert users == {"Relu", "Result"}  # nothing of the normalisation is left behind it
    expected, got = (core.compile_model(m, "CPU", F32)([pixels]) for m in (plain, moved))
    for number in range(2):
        np.testing.assert_allclose(got[number], expected[number], rtol=1e-6, atol=1e-6)


def test_what_differs_between_pixels_stays_behind_the_turn(pixels, tmp_path):
    model = normalising(np.zeros(3))
    shading = np.random.default_rng(0).uniform(1, 2, (1, 3, 4, 5)).astype(np.float32)
    std = next(t for t in model.graph.initializer if t.name == "std")
    std.CopyFrom(numpy_helper.from_array(shading, "std"))
    onnx.save(model, tmp_path / "m.onnx")
    core = openvino.Core()
    plain, moved = (core.read_model(tmp_path / "m.onnx") for _ in range(2))
    assert normalise_channels_last(moved) == 2  # conversion and mean
    expected, got = (core.compile_model(m, "CPU", F32)([pixels])[0] for m in (plain, moved))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_an_image_with_channels_first_is_left_alone(float_model):
    model = openvino.Core().read_model(float_model.path / "model.onnx")
    assert normalise_channels_last(model) == 0
