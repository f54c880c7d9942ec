"""Products with a large W in whole numbers."""

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from fre_export import ExportOptions, export, onnx_graph
from fre_export.fold import graph_of
from fre_export.passes.integer_products import LONGEST, integer_products
from fre_runtime import Detector
from fre_runtime.card import OUTPUTS
from fre_runtime.image import read_image
from fre_runtime.model_dir import GOLDEN_IMAGE
from tests.export.conftest import small_graph

D, K = 500, 40
RESOLUTION = 1 / (2 * 63 * 126 * 126)
"""Largest error of an element, in units of the largest of its vector."""
ANY = {"x": (TensorProto.FLOAT, [None, D])}


def checked(nodes, constants, inputs=ANY, outputs=("z", "e")):
    return small_graph(nodes, constants, inputs, outputs)


def orthonormal(rows, columns):
    return np.linalg.qr(np.random.default_rng(7).normal(size=(columns, rows)))[0].T


def constants(rows=K, columns=D, scale_shape=None):
    w = orthonormal(rows, columns)
    q = np.round(w / np.abs(w).max(1, keepdims=True) * 127).astype(np.int8)
    project = -127 / np.square(q.astype(np.float64)).sum(1, keepdims=True)
    shape = scale_shape or project.shape
    return {
        "q": q,
        "project": np.broadcast_to(project, shape).astype(np.float32),
        "back": np.array(1 / 127, np.float32),
    }


UNPACK = [
    helper.make_node("Cast", ["q"], ["w"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["w", "project"], ["scaled"]),
    helper.make_node("Transpose", ["scaled"], ["across"], perm=[1, 0]),
]
BACK = helper.make_node("Mul", ["w", "back"], ["w_back"])
THERE = helper.make_node("MatMul", ["x", "across"], ["z"], name="there")
RETURN = helper.make_node("Gemm", ["z", "w_back", "x"], ["e"], name="return")


def reconstruction():
    """As the exporter writes `fre_edge.fre.Reconstruction`: z = x W^T, e = x - z W."""
    return checked([*UNPACK, THERE, BACK, RETURN], constants())


def run(model, x):
    onnx.checker.check_model(model, full_check=True)  # also that the order is topological
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})


def rewritten(model, fewest=1):
    found = onnx.ModelProto.FromString(model.SerializeToString())
    return found, integer_products(found.graph, fewest)


def reference(model):
    """onnx's own evaluator; it has QuantizeLinear from opset 19 on, which changed nothing here."""
    newer = onnx.version_converter.convert_version(model, 19)
    return ReferenceEvaluator(newer)


def by_kind(model, kind):
    return [node for node in model.graph.node if node.op_type == kind]


def vectors(kind):
    random = np.random.default_rng(1)
    x = random.normal(size=(3, D)).astype(np.float32)
    return {
        "random": x,
        "one": x[:1],
        "many": random.normal(size=(33, D)).astype(np.float32),
        "each another size": x * np.array([[1e-20], [1], [1e15]], np.float32),
        "heavy tails": (x**5).astype(np.float32),
        "one element sticks out": np.where(np.arange(D) == 3, 1e6, x).astype(np.float32),
        "constant": np.full((2, D), 3.5, np.float32),
        "one is zero": x * np.array([[1], [0], [1]], np.float32),
        "zero": np.zeros((2, D), np.float32),
    }[kind]


KINDS = ["random", "one", "many", "each another size", "heavy tails", "one element sticks out",
         "constant", "one is zero", "zero"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_the_float_graph_says(kind):
    model = reconstruction()
    whole, count = rewritten(model)
    assert count == 2
    x = vectors(kind)
    (z, e), (new_z, new_e) = run(model, x), run(whole, x)
    lost = RESOLUTION * np.abs(x).max(1, keepdims=True)
    # x moves by no more than that in each element, and W shortens it; z again, for e.
    bound = lost * np.sqrt(D) * 1.1
    scale = np.abs(z).max(1, keepdims=True) / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-30)
    assert (np.abs(new_z - z) <= scale * bound * np.sqrt(K) + 1e-5 * np.abs(z).max()).all()
    assert (np.abs(new_e - e) <= 2 * bound + 1e-30).all()
    energy, new_energy = (np.square(v.astype(np.float64)).sum(1) for v in (e, new_e))
    np.testing.assert_allclose(new_energy, energy, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_is_the_same_in_any_batch(kind):
    whole, _ = rewritten(reconstruction())
    x = vectors(kind)
    together = run(whole, x)
    for i in range(len(x)):
        for all_of_them, alone in zip(together, run(whole, x[i : i + 1]), strict=True):
            np.testing.assert_array_equal(all_of_them[i : i + 1], alone)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so_and_touches_no_other_image(value):
    whole, _ = rewritten(reconstruction())
    x = vectors("random")
    expected = run(whole, x)
    x = x.copy()
    x[1, 17] = value
    got = run(whole, x)
    assert not np.isfinite(np.square(got[1][1]).sum())
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_array_equal(a[[0, 2]], b[[0, 2]])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "many"])
def test_the_reference_evaluator_says_the_same(kind):
    whole, _ = rewritten(reconstruction())
    x = vectors(kind)
    for ours, theirs in zip(run(whole, x), reference(whole).run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * np.abs(ours).max())


def test_no_int16_of_an_old_processor_overflows():
    """Such processors add pairs of uint8 times int8 in 16 bits, and cut off what is too large."""
    whole, _ = rewritten(reconstruction())
    whole.graph.output.extend(
        helper.make_tensor_value_info(f"{name}.pieces", TensorProto.UINT8, [None, 3, length])
        for name, length in (("z", D), ("e", K))
    )
    for kind in KINDS:
        *_, x, z = run(whole, vectors(kind))
        for pieces in (x, z):
            assert pieces.dtype == np.uint8
            assert 1 <= pieces.min() <= pieces.max() <= 127
    assert np.iinfo(np.int16).max >= 2 * 127 * 128
    assert np.iinfo(np.int32).max >= LONGEST * 127 * 128
    assert LONGEST >= 132_000


def test_w_is_kept_once_and_in_8_bits():
    whole, _ = rewritten(reconstruction())
    assert len(by_kind(whole, "MatMulInteger")) == 2
    assert {node.name for node in by_kind(whole, "MatMulInteger")} == {"there", "return"}
    large = [t for t in whole.graph.initializer if np.prod(t.dims) > D]
    assert [(t.name, t.data_type) for t in large] == [("q", TensorProto.INT8)]
    used = {name for node in whole.graph.node for name in node.input}
    assert used >= {tensor.name for tensor in whole.graph.initializer}
    used |= {"z", "e"}
    assert not [node.name for node in whole.graph.node if used.isdisjoint(node.output)]
    assert {opset.domain for opset in whole.opset_import} == {""}


def untied():
    """An autoencoder's: another W on the way back, and a bias."""
    more = constants()
    values = {**more, "v": more["q"][::-1].copy(), "bias": np.arange(K, dtype=np.float32)}
    nodes = [
        *UNPACK,
        helper.make_node("MatMul", ["x", "across"], ["code"], name="there"),
        helper.make_node("Add", ["code", "bias"], ["z"]),
        helper.make_node("Cast", ["v"], ["decoder"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["back", "decoder"], ["w_back"]),
        RETURN,
    ]
    return checked(nodes, values)


def turned_by_gemm():
    """Weights as (outputs, inputs) without a Transpose, and a constant added."""
    nodes = [
        *UNPACK[:2],
        helper.make_node("Gemm", ["x", "scaled", "bias"], ["z"], name="there", transB=1),
    ]
    values = constants() | {"bias": np.ones(K, np.float32)}
    del values["back"]
    return checked(nodes, values, outputs=["z"])


def unscaled():
    nodes = [
        helper.make_node("Cast", ["q"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["z"], name="there"),
    ]
    return checked(nodes, {"q": constants()["q"].T.copy()}, outputs=["z"])


@pytest.mark.parametrize(("make", "count"), [(untied, 2), (turned_by_gemm, 1), (unscaled, 1)])
def test_other_forms_of_the_product(make, count):
    model = make()
    whole, found = rewritten(model)
    assert found == count
    x = vectors("random")
    for a, b in zip(run(model, x), run(whole, x), strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=2e-3 * np.abs(a).max())


def edited(node, **attributes):
    new = onnx.NodeProto()
    new.CopyFrom(node)
    new.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
    return new


def scaled_by_input():
    values = constants(scale_shape=None) | {"project": np.ones((1, D), np.float32)}
    return checked([*UNPACK, THERE, BACK, RETURN], values)


def too_long():
    """One element more, and the sum of the largest products would not fit an int32."""
    q = np.full((LONGEST + 1, 1), 127, np.int8)
    nodes = [
        helper.make_node("Cast", ["q"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
    ]
    return checked(nodes, {"q": q}, {"x": (TensorProto.FLOAT, [None, len(q)])}, ["z"])


def in_float32():
    return checked(
        [helper.make_node("MatMul", ["x", "w"], ["z"])],
        {"w": orthonormal(K, D).T.astype(np.float32)},
        outputs=["z"],
    )


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (scaled_by_input, 1),  # the way back is as ever
        (too_long, 0),
        (in_float32, 0),
        (lambda: checked([*UNPACK, THERE, BACK, edited(RETURN, alpha=0.5)], constants()), 1),
        (lambda: checked([*UNPACK, THERE, BACK, edited(RETURN, beta=0.5)], constants()), 1),
        (lambda: checked([*UNPACK, THERE, BACK, edited(RETURN, alpha=1.0)], constants()), 2),
    ],
    ids=["scaled by input", "too long", "float32", "alpha", "beta", "alpha is 1"],
)
def test_only_what_can_be_written_so_is_rewritten(make, count):
    model = make()
    whole, found = rewritten(model)
    assert found == count
    if not count:
        assert whole.SerializeToString(True) == model.SerializeToString(True)


def test_the_longest_vector_does_not_overflow():
    q = np.full((LONGEST, 16), 127, np.int8)
    nodes = [
        helper.make_node("Cast", ["q"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["z"]),
    ]
    model = checked(nodes, {"q": q}, {"x": (TensorProto.FLOAT, [None, len(q)])}, ["z"])
    whole, found = rewritten(model)
    assert found == 1
    x = np.stack([np.ones(LONGEST), -np.ones(LONGEST)]).astype(np.float32)
    (z,) = run(whole, x)
    np.testing.assert_allclose(z, x[:, :1] * (127.0 * LONGEST) * np.ones(16), rtol=1e-6)


@pytest.mark.parametrize(("fewest", "count"), [(K * D, 2), (K * D + 1, 0)])
def test_only_large_weights_are_rewritten(fewest, count):
    model = reconstruction()
    whole, found = rewritten(model, fewest)
    assert found == count
    assert (whole.SerializeToString(True) == model.SerializeToString(True)) is (count == 0)


@pytest.fixture(scope="module")
def whole_model(tiny_fit, tmp_path_factory):
    """The tiny model, with its products in whole numbers although they are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            onnx_graph, "integer_products", lambda graph: integer_products(graph, fewest=1)
        )
        return export(tiny_fit, tmp_path_factory.mktemp("models") / "whole")


def test_an_exported_model_passes_its_proof_and_says_the_same(whole_model, uint8_model):
    graph = onnx.load(whole_model.path / "model.onnx")
    assert len(by_kind(graph, "MatMulInteger")) == 2 * len(whole_model.card.layers)
    image = read_image(whole_model.path / GOLDEN_IMAGE)
    for engine in ("onnxruntime", "openvino"):
        ours, plain = (Detector(model, engine)(image) for model in (whole_model, uint8_model))
        assert ours.raw_score == pytest.approx(plain.raw_score, rel=1e-4)
        np.testing.assert_allclose(ours.anomaly_map, plain.anomaly_map, atol=1e-4)
    expected = reference(graph).run(list(OUTPUTS), {"image": image[None]})
    session = onnxruntime.InferenceSession(whole_model.path / "model.onnx")
    for a, b in zip(session.run(list(OUTPUTS), {"image": image[None]}), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3)


def test_openvinos_own_format_is_made_from_the_graph_before(whole_model, uint8_model):
    ours, plain = (model.path / "openvino/model.bin" for model in (whole_model, uint8_model))
    assert ours.read_bytes() == plain.read_bytes()


def test_a_small_model_is_left_as_it_is(uint8_model):
    assert not by_kind(onnx.load(uint8_model.path / "model.onnx"), "MatMulInteger")


def test_nothing_that_is_not_finite_gives_a_score(tiny_fit):
    head = onnx_graph.trace_head(
        tiny_fit.head(), tiny_fit.shapes, graph_of(tiny_fit, ExportOptions())
    )
    assert integer_products(head.graph, fewest=1)
    session = onnxruntime.InferenceSession(head.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    features = [np.ones((3, *shape), np.float32) for shape in tiny_fit.shapes]
    for layer in range(len(names)):
        for value in (np.nan, np.inf, -np.inf):
            broken = [values.copy() for values in features]
            broken[layer][1, 2, 0, 0] = value
            score, label, *_ = session.run(None, dict(zip(names, broken, strict=True)))
            assert np.isnan(score[1])
            assert label[1]
            assert np.isfinite(score[[0, 2]]).all()
