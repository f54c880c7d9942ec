"""Products with a large 8-bit W in whole numbers, for ONNX Runtime.

At batch 1 these products are bound by reading W, and ONNX Runtime makes float32 of an 8-bit
constant when it loads. It keeps the 8 bits only where the vector x that meets W is of whole numbers
too. x is therefore written as three of them, with m = max |x| and a, b, c in -63..63,

    x = m (a / 63 + b / (63 * 126) + c / (63 * 126^2))

and one product serves all three: x W = m (a W / 63 + ...). x moves by at most m / 2,000,376, about
as much as float32 rounds the sum; with a and b alone maps came near to what `fre_export.parity`
allows. m is each vector's own, so that an image's score does not depend on its batch.

a, b and c take 7 bits of a uint8 (1..127, where 64 means 0) and not 8: processors without VNNI add
pairs of uint8 times int8 in 16 bits and cut off what is over 32767. Twice 127 * 128 is not, so all
processors say the same. int8 would need no such care, but there ONNX Runtime is several times
slower.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from fre_export.passes.onnx_nodes import Nodes

FEWEST = 500_000
"""Elements of W from which on less reading pays for some twenty small nodes."""
LONGEST = (2**31 - 1) // (127 * 128)
"""Longest vector whose product cannot overflow an int32: 132104."""

STEPS = np.array([1 / 63, 1 / (63 * 126), 1 / (63 * 126 * 126)], np.float32)
MIDDLE, LAST, TINY, ZERO, FACTORS = (
    f"split.{name}" for name in ("middle", "last", "tiny", "zero", "steps")
)
CONSTANTS: dict[str, NDArray[Any]] = {
    MIDDLE: np.array([1], np.int64),
    LAST: np.array([2], np.int64),
    TINY: np.array(1e-30, np.float32),  # a vector of zeros is not divided by zero
    ZERO: np.array(64, np.uint8),
    FACTORS: STEPS.reshape(1, 1, -1),
    **{f"split.step_{i}": step for i, step in enumerate(STEPS)},
}


def integer_products(graph: onnx.GraphProto, fewest: int = FEWEST) -> int:
    """Rewrite ``x @ W`` and ``x @ W + c`` where W has at least ``fewest`` elements of 8 bits.

    Returns how many were rewritten. A product of vectors longer than `LONGEST` stays as it is.
    """
    nodes = Nodes(graph)
    rewritten: list[_Weights] = []
    new: list[onnx.NodeProto] = []
    for node in graph.node:
        weights = _weights(nodes, node)
        if weights is None or weights.inputs > LONGEST or weights.inputs * weights.outputs < fewest:
            new.append(node)
        else:
            new.extend(_in_integers(node, weights))
            rewritten.append(weights)
    if rewritten:
        scales = {weights.scale_name: weights.scale for weights in rewritten}
        for name, value in {**CONSTANTS, **scales}.items():
            graph.initializer.append(numpy_helper.from_array(value, name))
        nodes.become(new)
    return len(rewritten)


@dataclass(frozen=True)
class _Weights:
    """The right side of a product: ``q * scale``, (inputs, outputs)."""

    integers: str
    """The constant q."""
    turned: bool
    """It is kept as (outputs, inputs)."""
    inputs: int
    outputs: int
    scale: NDArray[np.float32]
    """One number, or one for each output."""
    scale_name: str


def _weights(nodes: Nodes, product: onnx.NodeProto) -> _Weights | None:
    """The 8-bit weights of ``product``; None for other nodes, and weights scaled by input."""
    options = {a.name: helper.get_attribute_value(a) for a in product.attribute}
    turned = bool(options.pop("transB", 0))
    plain = {"transA": 0, "alpha": 1, "beta": 1}
    if product.op_type not in ("MatMul", "Gemm") or options.items() - plain.items():
        return None
    scale: NDArray[np.float32] = np.ones((1, 1), np.float32)
    name = product.input[1]
    while (maker := nodes.makers.get(name)) is not None:
        name = maker.input[0] if maker.input else ""
        if maker.op_type == "Transpose":
            turned = not turned
        elif maker.op_type == "Mul":
            first, second = maker.input
            if nodes.constant(second) is None:
                first, second = second, first
            factor = nodes.constant(second)
            if factor is None or factor.ndim > 2:
                return None
            name = first
            rows = np.atleast_2d(factor.astype(np.float32))
            scale = scale * (rows.T if turned else rows)
        elif maker.op_type != "Cast":
            return None
    integers = nodes.constant(name)
    if integers is None or integers.dtype != np.int8 or integers.ndim != 2 or len(scale) > 1:
        return None
    inputs, outputs = integers.shape[::-1] if turned else integers.shape
    scale = scale.ravel() if scale.size > 1 else scale.reshape(())
    return _Weights(name, turned, inputs, outputs, scale, f"{product.output[0]}.scale")


def _in_integers(product: onnx.NodeProto, weights: _Weights) -> list[onnx.NodeProto]:
    """What comes in place of ``product``."""
    made: list[onnx.NodeProto] = []

    def node(kind: str, inputs: list[str], name: str, **attributes: int) -> str:
        value = f"{product.output[0]}.{name}"
        called = f"{product.name}.{name}"
        made.append(helper.make_node(kind, inputs, [value], called, **attributes))
        return value

    x = node("Unsqueeze", [product.input[0], MIDDLE], "x")  # (N, 1, inputs)
    largest = node("ReduceMax", [node("Abs", [x], "size"), LAST], "largest")
    m = node("Add", [largest, TINY], "m")  # (N, 1, 1)
    unit = node("Div", [x, m], "unit")
    pieces, rest = [], unit
    for i in range(len(STEPS)):
        rounding = [f"split.step_{i}", ZERO]
        pieces.append(node("QuantizeLinear", [rest, *rounding], f"piece_{i}"))
        if i < len(STEPS) - 1:
            about = node("DequantizeLinear", [pieces[i], *rounding], f"about_{i}")
            rest = node("Sub", [rest, about], f"rest_{i}")
    stacked = node("Concat", pieces, "pieces", axis=1)  # (N, 3, inputs)
    q = node("Transpose", [weights.integers], "turned") if weights.turned else weights.integers
    whole = node("MatMulInteger", [stacked, q, ZERO], "whole")  # (N, 3, outputs)
    made[-1].name = product.name  # the product itself
    parts = node("DequantizeLinear", [whole, weights.scale_name], "parts", axis=2)
    factors = node("Mul", [m, FACTORS], "factors")  # (N, 1, 3)
    result = node("Squeeze", [node("MatMul", [factors, parts], "sum"), MIDDLE], "result")
    if len(product.input) > 2:
        node("Add", [result, product.input[2]], "added")
    made[-1].output[0] = product.output[0]
    return made
