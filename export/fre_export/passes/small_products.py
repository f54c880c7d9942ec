"""Products with a few constants as sums, for OpenVINO's own format."""

import math

import numpy as np
import openvino
from openvino import opset13

FEW = 8192
"""Constants up to which calling OpenVINO's matrix product costs more than its arithmetic."""


def sum_small_products(model: openvino.Model) -> int:
    """Turn ``x @ c`` with a small constant c (n, m) into the sum of x's elements times c's rows.

    In bf16 such a product also counts as one of the nodes that run in it, with all that lies
    before; what follows the products with W stays in float32 without them. Returns how many were
    turned.
    """
    turned = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul" or any(node.get_attributes().values()):
            continue
        rows, constants = node.input_value(0), node.input_value(1)
        shape = constants.get_partial_shape()
        if constants.get_node().get_type_name() != "Constant" or shape.rank.get_length() != 2:
            continue
        if math.prod(shape.to_shape()) > FEW or rows.get_partial_shape().rank.get_length() != 2:
            continue
        last = opset13.unsqueeze(rows, np.int64(2))
        new = opset13.reduce_sum(opset13.multiply(last, constants), np.int64(1), False)
        new.set_friendly_name(node.get_friendly_name())
        for target in list(node.output(0).get_target_inputs()):
            target.replace_source_output(new.output(0))
        turned += 1
    model.validate_nodes_and_infer_types()
    return turned
