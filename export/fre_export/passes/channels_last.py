"""The image normalised as it lies in memory, for OpenVINO's own format.

The image comes with its channels last and OpenVINO convolves it so, yet a graph that turns it to
channels first before it normalises has it copied twice: there and back.
"""

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13

CHANNELS_FIRST = [0, 3, 1, 2]
ARITHMETIC = {
    "Add": opset13.add,
    "Subtract": opset13.subtract,
    "Multiply": opset13.multiply,
    "Divide": opset13.divide,
}


def normalise_channels_last(model: openvino.Model) -> int:
    """Move what is done to each channel by itself ahead of the image's transposition.

    The transposition is then next to the convolution, and OpenVINO drops both copies. Returns how
    many steps were moved: 0 where the image is not transposed.
    """
    image = model.inputs[0]
    turn = _only_user(image)
    if turn is None or turn.get_type_name() != "Transpose":
        return 0
    if np.asarray(turn.input_value(1).get_node().data).tolist() != CHANNELS_FIRST:
        return 0
    height, width, channels = (d.get_length() for d in list(image.get_partial_shape())[1:])

    def constant(values: NDArray[np.float32]) -> openvino.Node:
        return opset13.constant(np.tile(values, width).reshape(1, 1, width * channels))

    # A whole row at a time: three values in turn would be read one by one.
    moved = opset13.reshape(image, [0, height, width * channels], True)
    last, steps = turn, 0
    while (step := _only_user(last.output(0))) is not None:
        kind = step.get_type_name()
        values = _by_channel(step, channels)
        if kind == "Convert":
            moved = opset13.convert(moved, step.get_element_type().to_string())
        elif kind in ARITHMETIC and values is not None:
            moved = ARITHMETIC[kind](moved, constant(values))
        else:
            break
        last, steps = step, steps + 1
    if steps:
        users = list(last.output(0).get_target_inputs())
        rows = opset13.reshape(moved, [0, height, width, channels], True)
        normal = opset13.transpose(rows, CHANNELS_FIRST)
        normal.set_friendly_name(last.get_friendly_name())
        for user in users:
            user.replace_source_output(normal.output(0))
        model.validate_nodes_and_infer_types()
    return steps


def _only_user(output: openvino.Output) -> openvino.Node | None:
    users = output.get_target_inputs()
    return next(iter(users)).get_node() if len(users) == 1 else None


def _by_channel(step: openvino.Node, channels: int) -> NDArray[np.float32] | None:
    """The constant that ``step`` takes, one value for each channel; None where it is another."""
    if step.get_input_size() < 2:
        return None
    source = step.input_value(1)
    shape = source.get_partial_shape()
    if not shape.is_static or list(shape.to_shape()) not in ([1, channels, 1, 1], [1], []):
        return None
    node = source.get_node()
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant":
        return None
    return np.broadcast_to(np.asarray(node.data, np.float32).ravel(), (channels,))
