"""Weights that OpenVINO keeps in 8 bits in memory, for OpenVINO's own format."""

from collections.abc import Iterator

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13


def compress_weights(model: openvino.Model) -> int:
    """Turn products with 8-bit constants into the form that is executed in 8 bits.

    That form is ``x @ (convert(q) * scale)^T`` with q of shape (outputs, inputs): it alone is kept
    compressed, and the other one kills the process in bf16 (a division by zero in the compiler).
    A matrix that is used both ways is stored twice therefore. Returns how many were turned.
    """
    turned = 0
    for node in model.get_ordered_ops():
        found = _weights(node) if node.get_type_name() == "MatMul" else None
        if found is None:
            continue
        quantised, scale = found
        weights = opset13.multiply(
            opset13.convert(opset13.constant(np.ascontiguousarray(quantised)), "f32"),
            opset13.constant(scale),
        )
        new = opset13.matmul(node.input_value(0), weights, False, True)
        new.set_friendly_name(node.get_friendly_name())
        for target in list(node.output(0).get_target_inputs()):
            target.replace_source_output(new.output(0))
        turned += 1
    model.validate_nodes_and_infer_types()
    return turned


def _weights(matmul: openvino.Node) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Integers (outputs, inputs) and their scale (outputs or 1, 1); None for another product."""
    across = bool(matmul.get_attributes()["transpose_b"])
    scale = np.ones((1, 1), np.float32)
    for node in _chain(matmul.input_value(1).get_node()):
        kind = node.get_type_name()
        if kind == "Transpose":
            across = not across
        elif kind == "Multiply":
            factor = node.input_value(1).get_node()
            if factor.get_type_name() != "Constant":  # a product of two activations
                return None
            data = np.asarray(factor.data, np.float32)
            scale = scale * (data if data.ndim == 2 else data.reshape(1, 1))
        elif kind == "Constant" and node.get_element_type() == openvino.Type.i8:
            quantised = np.asarray(node.data)
            return (quantised if across else quantised.T), scale
    return None


def _chain(node: openvino.Node) -> Iterator[openvino.Node]:
    """From a product's weights down to the constant that they are made of."""
    while node.get_type_name() in ("Transpose", "Multiply", "Convert"):
        yield node
        node = node.input_value(0).get_node()
    yield node
