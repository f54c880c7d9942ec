"""Square and sum in one node: at batch 1 a node costs more than its arithmetic."""

import onnx
from onnx import helper

from fre_export.passes.onnx_nodes import Nodes


def sum_squares(graph: onnx.GraphProto) -> bool:
    """Write ``ReduceSum(x * x)`` as ReduceSumSquare; True if there was one."""
    changed = False
    while (found := _find(Nodes(graph))) is not None:
        square, total = found
        keepdims = next((a.i for a in total.attribute if a.name == "keepdims"), 1)
        new = helper.make_node(
            "ReduceSumSquare",
            [square.input[0], total.input[1]],
            [total.output[0]],
            name=total.name,
            keepdims=keepdims,
        )
        Nodes(graph).replace([square, total], [new])
        changed = True
    return changed


def _find(nodes: Nodes) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    for square in nodes.graph.node:
        if square.op_type == "Mul" and square.input[0] == square.input[1]:
            total = nodes.only_user(square.output[0], "ReduceSum")
            # Axes that are computed may come after the square, so only constant ones will do.
            if total is None or len(total.input) < 2:
                continue
            if nodes.constant(total.input[1]) is not None:
                return square, total
    return None
