"""The first convolution takes the photo's rows as they lie in memory, for ONNX Runtime.

A photo comes channels last, ONNX convolves channels first, and turning one into the other takes
ONNX Runtime longer than converting it to float32. Three interleaved channels are also one channel
of three times the width. On that, a convolution with C channels, kernel (kh, kw), stride (sh, sw)
and left padding p is one with a single channel, kernel (kh, C kw), stride (sh, C sw) and left
padding C p: the same products and the same sums, without a turn.

Only where all channels are scaled alike: a scale for each would be one for each element of a row.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fre_export.passes.onnx_nodes import Nodes

CHANNELS_FIRST = [0, 3, 1, 2]
WEIGHT, SHAPE, SCALE, ZERO, ROWS = (
    f"rows.{name}" for name in ("weight", "shape", "scale", "zero_point", "image")
)


def convolve_rows(graph: onnx.GraphProto) -> bool:
    """Rewrite Transpose, DequantizeLinear and Conv at the image; True if they were there."""
    nodes = Nodes(graph)
    image = graph.input[0]
    turn = nodes.only_user(image.name, "Transpose")
    dequantize = turn and nodes.only_user(turn.output[0], "DequantizeLinear")
    convolve = dequantize and nodes.only_user(dequantize.output[0], "Conv")
    if turn is None or dequantize is None or convolve is None or len(dequantize.input) != 3:
        return False
    scale, zero = (nodes.constant(name) for name in dequantize.input[1:])
    weight = nodes.constant(convolve.input[1])
    options = {a.name: helper.get_attribute_value(a) for a in convolve.attribute}
    plain = options.get("group", 1) == 1 and set(options.get("dilations", [1])) == {1}
    if (
        [helper.get_attribute_value(a) for a in turn.attribute] != [CHANNELS_FIRST]
        or scale is None
        or zero is None
        or weight is None
        or weight.ndim != 4
        or not plain
        or options.get("auto_pad", b"NOTSET") != b"NOTSET"
        or len({*scale.ravel().tolist()}) > 1
        or len({*zero.ravel().tolist()}) > 1
    ):
        return False
    _, height, width, channels = (d.dim_value for d in image.type.tensor_type.shape.dim)
    filters, _, kernel_height, kernel_width = weight.shape
    kernel = (kernel_height, channels * kernel_width)
    down, across = options.get("strides", [1, 1])
    top, left, bottom, right = options.get("pads", [0] * 4)
    constants = {
        WEIGHT: np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(filters, 1, *kernel),
        SHAPE: np.array([0, 1, height, channels * width], np.int64),  # 0: the batch, as it comes
        SCALE: scale.ravel()[0],
        ZERO: zero.ravel()[0],
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    new = [
        helper.make_node("Reshape", [image.name, SHAPE], [ROWS], name=ROWS),
        helper.make_node(
            "DequantizeLinear", [ROWS, SCALE, ZERO], [dequantize.output[0]], dequantize.name
        ),
        helper.make_node(
            "Conv",
            [dequantize.output[0], WEIGHT, *convolve.input[2:]],
            [convolve.output[0]],
            convolve.name,
            kernel_shape=kernel,
            strides=[down, channels * across],
            pads=[top, channels * left, bottom, channels * right],
        ),
    ]
    stale = [value for value in graph.value_info if value.name == dequantize.output[0]]
    for value in stale:  # it has another shape now
        graph.value_info.remove(value)
    nodes.replace([turn, dequantize, convolve], new)
    return True
