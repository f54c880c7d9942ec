"""Cast, subtract, divide: three passes over the image become one DequantizeLinear."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fre_export.passes.onnx_nodes import Nodes


def dequantize_input(graph: onnx.GraphProto) -> bool:
    """Write ``(float(image) - mean) / std`` as DequantizeLinear; True if it was there.

    y = (x - zero_point) * scale with a whole-numbered mean as the zero point; another mean is
    subtracted afterwards, in units of std.
    """
    nodes = Nodes(graph)
    cast = next((n for n in graph.node if n.op_type == "Cast"), None)
    subtract = cast and nodes.only_user(cast.output[0], "Sub")
    divide = subtract and nodes.only_user(subtract.output[0], "Div")
    if cast is None or subtract is None or divide is None:
        return False
    mean, std = nodes.constant(subtract.input[1]), nodes.constant(divide.input[1])
    if mean is None or std is None or mean.shape != (1, 3, 1, 1):
        return False
    mean, scale = mean.astype(np.float64).ravel(), (1 / std.astype(np.float64)).ravel()
    whole = bool((mean == np.round(mean)).all() and (mean >= 0).all() and (mean <= 255).all())
    zero = (mean if whole else np.zeros(3)).astype(np.uint8)
    graph.initializer.extend(
        [
            numpy_helper.from_array(scale.astype(np.float32), "input_scale"),
            numpy_helper.from_array(zero, "input_zero_point"),
        ]
    )
    last = divide.output[0]
    scaled = last if whole else "input_scaled"
    new = [
        helper.make_node(
            "DequantizeLinear",
            [cast.input[0], "input_scale", "input_zero_point"],
            [scaled],
            name="input",
            axis=1,
        )
    ]
    if not whole:
        shift = (mean * scale).astype(np.float32).reshape(1, 3, 1, 1)
        graph.initializer.append(numpy_helper.from_array(shift, "input_shift"))
        new.append(helper.make_node("Sub", [scaled, "input_shift"], [last], name="input_shift"))
    nodes.replace([cast, subtract, divide], new)
    return True
