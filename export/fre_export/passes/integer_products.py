"""Products with a large 8-bit W in whole numbers, for ONNX Runtime.

At batch 1 these products are bound by reading W, and ONNX Runtime makes float32 of an 8-bit
constant when it loads. It keeps the 8 bits only where the vector x that meets W is of whole numbers
too; 8 bits of x would be too coarse, so x is written as two, high and low:

    x = m (h / 63 + l / (63 * 126)),  m = max |x|,  h and l in -63..63
    x W = m (h W / 63 + l W / (63 * 126))

with one product in whole numbers for both. What is lost of x is at most m / 15876; m is each
vector's own, so that an image's score does not depend on its batch.

h and l take 7 bits of a uint8 (1..127, 64 is zero), not 8: processors without VNNI add two products
of uint8 by int8 in 16 bits and cut off what is over 32767. 2 * 127 * 128 is not, so that the sums
are the same on all of them. The signed types would not need this, yet ONNX Runtime is several times
slower with them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from fre_export.passes.onnx_nodes import Nodes

FEWEST = 4_000_000
"""Elements of W from which on it pays; a smaller W stays in the caches, in float32 as well."""
Floats = NDArray[np.float32]
LEVELS = 63
ZERO = 64
LONGEST = (2**31 - 1) // ((LEVELS + ZERO) * 128)
"""Length of the longest vector whose product cannot overflow an int32: 132104."""

AXIS, TINY = "split.axis", "split.tiny"
HIGH, LOW, MIDDLE = "split.high", "split.low", "split.zero"
CONSTANTS: dict[str, NDArray[Any]] = {
    AXIS: np.array([1], np.int64),
    TINY: np.array(1e-30, np.float32),  # a vector of zeros is not divided by zero
    HIGH: np.array(1 / LEVELS, np.float32),
    LOW: np.array(1 / (2 * LEVELS * LEVELS), np.float32),
    MIDDLE: np.array(ZERO, np.uint8),
}


def integer_products(graph: onnx.GraphProto, fewest: int = FEWEST) -> int:
    """Rewrite ``x @ W`` and ``x @ W + c`` where W has at least ``fewest`` elements of 8 bits.

    Returns how many were rewritten. Where x is longer than `LONGEST` a product stays as it is.
    """
    nodes = Nodes(graph)
    rewritten, new = 0, []
    for node in graph.node:
        weights = _weights(nodes, node)
        if weights is None or not weights.pay(fewest):
            new.append(node)
        else:
            new.extend(_in_integers(graph, node, weights))
            rewritten += 1
    if rewritten:
        graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in CONSTANTS.items())
        nodes.become(new)
    return rewritten


@dataclass(frozen=True)
class _Weights:
    """The right side of a product: ``q * scale``, (inputs, outputs)."""

    name: str
    """The initializer that holds q."""
    turned: bool
    """It holds it as (outputs, inputs)."""
    inputs: int
    outputs: int
    scale: Floats
    """(inputs or 1, outputs or 1)."""

    def pay(self, fewest: int) -> bool:
        """Whether the product can be rewritten, and is large enough."""
        possible = self.inputs <= LONGEST and len(self.scale) == 1
        return possible and self.inputs * self.outputs >= fewest


def _weights(nodes: Nodes, product: onnx.NodeProto) -> _Weights | None:
    """The 8-bit weights of ``product``; None for another node."""
    options = {a.name: helper.get_attribute_value(a) for a in product.attribute}
    turned = bool(options.pop("transB", 0))
    plain = {"transA": 0, "alpha": 1, "beta": 1}
    if product.op_type not in ("MatMul", "Gemm") or options.items() - plain.items():
        return None
    scale = np.ones((1, 1), np.float32)
    name = product.input[1]
    while (maker := nodes.makers.get(name)) is not None:
        name = maker.input[0]
        if maker.op_type == "Transpose":
            turned = not turned
        elif maker.op_type == "Mul":
            factor = nodes.constant(maker.input[1])
            if factor is None or factor.ndim > 2:
                return None
            factor = np.atleast_2d(factor)
            scale = scale * (factor.T if turned else factor)
        elif maker.op_type != "Cast":
            return None
    integers = nodes.constant(name)
    if integers is None or integers.dtype != np.int8 or integers.ndim != 2:
        return None
    inputs, outputs = integers.shape[::-1] if turned else integers.shape
    return _Weights(name, turned, inputs, outputs, scale)


def _in_integers(
    graph: onnx.GraphProto, product: onnx.NodeProto, weights: _Weights
) -> list[onnx.NodeProto]:
    """The nodes in place of ``product``; their constants go into ``graph``."""
    vectors, out = product.input[0], product.output[0]
    made: list[onnx.NodeProto] = []

    def node(kind: str, inputs: list[str], name: str, **attributes: int | list[int]) -> str:
        value = f"{out}.{name}"
        made.append(
            helper.make_node(kind, inputs, [value], f"{product.name}.{name}", **attributes)
        )
        return value

    def constant(value: NDArray[Any], name: str) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"{out}.{name}"))
        return f"{out}.{name}"

    size = node("Abs", [vectors], "size")
    m = node("Add", [node("ReduceMax", [size, AXIS], "largest"), TINY], "m")  # (N, 1)
    unit = node("Div", [vectors, m], "unit")
    high = node("QuantizeLinear", [unit, HIGH, MIDDLE], "high")
    about = node("DequantizeLinear", [high, HIGH, MIDDLE], "about")
    low = node("QuantizeLinear", [node("Sub", [unit, about], "rest"), LOW, MIDDLE], "low")
    both = node("Concat", [high, low], "both", axis=1)  # (N, 2 * inputs)
    shape = constant(np.array([0, 2, weights.inputs]), "shape")
    both = node("Reshape", [both, shape], "pieces")
    q = node("Transpose", [weights.name], "turned") if weights.turned else weights.name
    whole = node("MatMulInteger", [both, q, MIDDLE], "whole")  # (N, 2, outputs)
    made[-1].name = product.name  # the product itself
    by_column = weights.scale.size > 1
    steps = np.array([CONSTANTS[HIGH], CONSTANTS[LOW]], np.float32)
    if not by_column:
        steps = steps * weights.scale.ravel()
    floats = node("DequantizeLinear", [whole, constant(steps, "steps")], "floats", axis=1)
    unscaled = node("ReduceSum", [floats, AXIS], "sum", keepdims=0)  # (N, outputs)
    result = node("Mul", [unscaled, m], "result")
    if by_column:
        result = node("Mul", [result, constant(weights.scale, "scale")], "scaled")
    if len(product.input) > 2:
        result = node("Add", [result, product.input[2]], "added")
    made[-1].output[0] = out
    return made
