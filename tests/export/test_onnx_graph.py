import json

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest

from fre_runtime.card import OUTPUTS
from fre_runtime.image import read_image
from fre_runtime.preprocess import prepare

MODELS = ["uint8_model", "float_model", "max_model"]
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture(params=MODELS)
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def graph(model):
    return onnx.load(model.path / "model.onnx", load_external_data=False)


def shape_of(value):
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_is_clean_self_contained_onnx(graph):
    onnx.checker.check_model(graph, full_check=True)
    onnx.shape_inference.infer_shapes(graph, check_type=True, strict_mode=True)
    assert not [t.name for t in graph.graph.initializer if t.external_data]
    assert max(o.version for o in graph.opset_import) >= 17
    assert len({o.domain for o in graph.opset_import}) == len(graph.opset_import)


def test_inputs_and_outputs_are_the_contract(graph, model):
    card = model.card.graph
    (image,) = graph.graph.input
    assert image.name == card.input_name
    assert shape_of(image) == ["batch", *card.input_shape]
    assert tuple(o.name for o in graph.graph.output) == OUTPUTS
    grid = ["batch", 1, card.map_height, card.map_width]
    assert [shape_of(o) for o in graph.graph.output] == [["batch"], ["batch"], grid, grid]
    kinds = [o.type.tensor_type.elem_type for o in graph.graph.output]
    number, truth = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    assert kinds == [number, truth, number, truth]


def test_the_projection_is_stored_once(graph, model):
    for layer in model.card.layers:
        wide = layer.channels * layer.height * layer.width
        copies = [t for t in graph.graph.initializer if sorted(t.dims) == [layer.components, wide]]
        assert len(copies) == 1


def test_every_node_is_of_use(uint8_model):
    graph = onnx.load(uint8_model.path / "model.onnx").graph
    used = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    assert not [node.name for node in graph.node if used.isdisjoint(node.output)]


def test_nothing_of_this_machine_is_in_the_file(graph):
    text = str(graph.metadata_props) + "".join(
        str(node.metadata_props) + node.doc_string for node in graph.graph.node
    )
    assert ".py" not in text
    assert "/" not in text


def test_metadata_tells_the_thresholds_in_both_formats(model):
    calibration = model.variant("fp32").calibration
    session = onnxruntime.InferenceSession(model.path / "model.onnx")
    props = session.get_modelmeta().custom_metadata_map
    assert float(props["fre_image_threshold"]) == calibration.image.value
    ir = openvino.Core().read_model(model.path / "openvino/model.xml")
    for key, value in props.items():  # Intel's Model API wants its own keys spelled so in ONNX
        path = ["model_info", key.removeprefix("model_info ")]
        assert ir.get_rt_info(path).astype(str) == value
    assert props["model_info model_type"] == "AnomalyDetection"
    assert ("model_info scale_values" in props) == (model.card.graph.io == "float")


def test_the_ir_has_the_same_names_and_shapes(model):
    ir = openvino.Core().read_model(model.path / "openvino/model.xml")
    assert [o.get_any_name() for o in ir.outputs] == list(OUTPUTS)
    assert tuple(ir.input(0).get_shape()) == (1, *model.card.graph.input_shape)


def test_the_ir_can_be_given_any_batch_again(model):
    """As it lies on disk its batch is 1, for speed; nothing in it depends on that."""
    graph = model.card.graph
    ir = openvino.Core().read_model(model.path / "openvino/model.xml")
    only_one = openvino.compile_model(ir, "CPU", F32)
    ir.reshape({graph.input_name: [-1, *graph.input_shape]})
    assert all(value.get_partial_shape()[0].is_dynamic for value in (*ir.inputs, *ir.outputs))
    images = np.random.default_rng(0).integers(0, 256, (3, *graph.input_shape), dtype=np.uint8)
    batch = images if graph.io == "uint8" else images.astype(np.float32) / np.float32(255)
    together = [np.array(value) for value in openvino.compile_model(ir, "CPU", F32)(batch).values()]
    for i in range(3):
        alone = only_one(batch[i : i + 1])
        for j, tolerance in ((0, 1e-5), (1, 0), (2, 1e-4)):
            np.testing.assert_allclose(together[j][i : i + 1], alone[j], rtol=tolerance)
    assert [len(value) for value in together] == [3] * len(OUTPUTS)


def test_the_ir_forbids_rounding_of_what_meets_8_bit_weights(model):
    ir = openvino.Core().read_model(model.path / "openvino/model.xml")
    key = ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"]
    assert ir.get_rt_info(key).astype(str) == "0"


def test_w_is_kept_in_8_bits_once_in_onnx_and_once_a_direction_in_the_ir(model):
    w = sum(
        layer.components * layer.channels * layer.height * layer.width
        for layer in model.card.layers
    )
    graph = onnx.load(model.path / "model.onnx").graph
    integers = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert sum(int(np.prod(t.dims)) for t in integers) == w
    onnx_bytes = (model.path / "model.onnx").stat().st_size
    assert (model.path / "openvino/model.bin").stat().st_size <= onnx_bytes + w


def test_foreign_clients_get_the_same_scores_from_the_ir(model):
    """Compiled without any of our settings but the precision: nothing is rounded on the way."""
    graph = model.card.graph
    image = prepare(read_image(model.path / "golden/image.png"), graph)
    compiled = openvino.Core().compile_model(model.path / "openvino/model.xml", "CPU", F32)
    score = compiled([image])[0]
    with np.load(model.path / "golden/fp32.npz") as golden:
        raw = golden["pred_score"] / (1 - golden["pred_score"])
    np.testing.assert_allclose(score / (1 - score), raw, rtol=1e-4)


@pytest.mark.parametrize("name", ["uint8_model", "max_model"])
def test_golden_outputs_can_be_had_with_a_bare_session(name, request):
    model = request.getfixturevalue(name)
    image = read_image(model.path / "golden/image.png")
    session = onnxruntime.InferenceSession(model.path / "model.onnx")
    score, label, anomaly_map, _ = session.run(None, {"image": image[None]})
    with np.load(model.path / "golden/fp32.npz") as golden:
        np.testing.assert_allclose(score, golden["pred_score"], rtol=1e-4)
        np.testing.assert_allclose(anomaly_map, golden["anomaly_map"], atol=1e-4)
        assert label == golden["pred_label"]


def test_manifest_lists_every_file(model):
    files = json.loads((model.path / "MANIFEST.json").read_text())["files"]
    present = {p.relative_to(model.path).as_posix() for p in model.path.rglob("*") if p.is_file()}
    assert present == {*files, "MANIFEST.json"}
