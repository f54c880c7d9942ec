"""onnx's own evaluator, written for clarity and by nobody of us, as the neutral judge."""

import numpy as np
import onnx
import pytest
from onnx import version_converter
from onnx.reference import ReferenceEvaluator

from fre_runtime.card import OUTPUTS
from fre_runtime.engines import open_engine
from fre_runtime.image import read_image
from fre_runtime.preprocess import prepare


def judge(model, batch):
    """What the ONNX standard gives; its evaluator knows DequantizeLinear from opset 19 on."""
    graph = version_converter.convert_version(onnx.load(model.path / "model.onnx"), 19)
    return ReferenceEvaluator(graph).run(list(OUTPUTS), {model.card.graph.input_name: batch})


@pytest.mark.parametrize("name", ["uint8_model", "float_model", "max_model"])
def test_both_engines_do_what_the_onnx_standard_says(name, make_photo, request):
    model = request.getfixturevalue(name)
    graph = model.card.graph
    golden = read_image(model.path / "golden/image.png")
    batch = np.concatenate([prepare(image, graph) for image in (golden, make_photo(77))])
    expected = judge(model, batch)
    for engine in ("onnxruntime", "openvino"):
        got = open_engine(model, engine).run(batch)
        for ours, reference in zip(got, expected, strict=True):
            assert ours.dtype == reference.dtype
            np.testing.assert_allclose(ours, reference, atol=1e-4)
        np.testing.assert_allclose(got.pred_score, expected[0], rtol=1e-4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of what is not a number
@pytest.mark.parametrize("value", [np.nan, np.inf, 255.0])
def test_the_standard_refuses_what_we_refuse(value, float_model):
    graph = float_model.card.graph
    batch = prepare(read_image(float_model.path / "golden/image.png"), graph)
    batch[0, 0, 3, 3] = value
    score, label, *_ = judge(float_model, batch)
    assert np.isnan(score[0])
    assert label[0]
