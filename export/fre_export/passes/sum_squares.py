"""Square and sum in one node: at batch 1 a node costs more than its arithmetic."""

import onnx
from onnx import helper

from fre_export.passes.onnx_nodes import Nodes


def sum_squares(graph: onnx.GraphProto) -> bool:
    """Write ``ReduceSum(x * x)`` as ReduceSumSquare; True if there was one."""
    changed = False
    for square in [n for n in graph.node if n.op_type == "Mul" and n.input[0] == n.input[1]]:
        nodes = Nodes(graph)
        total = nodes.only_user(square.output[0], "ReduceSum")
        if total is None:
            continue
        keepdims = next((a.i for a in total.attribute if a.name == "keepdims"), 1)
        new = helper.make_node(
            "ReduceSumSquare",
            [square.input[0], total.input[1]],
            [total.output[0]],
            name=total.name,
            keepdims=keepdims,
        )
        nodes.replace([square, total], [new])
        changed = True
    return changed
