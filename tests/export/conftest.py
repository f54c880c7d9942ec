"""What several tests of the export share."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fre_export import variants


def small_graph(nodes, constants, inputs, outputs):
    """A checked model; ``inputs`` by name: (type, shape)."""
    taken = [helper.make_tensor_value_info(name, *value) for name, value in inputs.items()]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "test", taken, given, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.fixture
def ratios(monkeypatch):
    """Set the time ratios that are measured, by variant; nothing is timed."""
    measured = {}

    def lookup(_, __, built):
        return {engine: measured[built.variant.precision][engine] for engine in built.engines}

    monkeypatch.setattr(variants, "_time_ratios", lookup)
    return measured
