"""From PyTorch to ONNX: the trunk (image to features) and the head (features to scores), joined.

They are traced apart, since a precision variant has another trunk and a head of its own.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from fre_edge.features import FeatureExtractor, FeatureShape
from fre_edge.fre import Head
from fre_export.passes.convolve_rows import convolve_rows
from fre_export.passes.dequantize_input import dequantize_input
from fre_export.passes.integer_products import integer_products
from fre_export.passes.sum_squares import sum_squares
from fre_runtime.card import OUTPUTS, Graph

OPSET = 18
BATCH = "batch"
"""Name of the dynamic axis."""
PIXELS = "pixels"
"""Name of the head's second input, until it is joined."""


def trace_trunk(extractor: FeatureExtractor, graph: Graph, layers: int) -> onnx.ModelProto:
    """Normalisation, backbone and pooling; outputs the features of each layer."""
    dtype = torch.uint8 if graph.io == "uint8" else torch.float32
    example = torch.zeros((2, *graph.input_shape), dtype=dtype)
    return trace(extractor, (example,), [graph.input_name], _features(layers))


def trace_head(head: Head, shapes: Sequence[FeatureShape], graph: Graph) -> onnx.ModelProto:
    """Everything from the features of each layer to `OUTPUTS`."""
    features = [torch.zeros(2, *shape) for shape in shapes]
    names = _features(len(shapes))
    with _distinct_thresholds(head) as thresholds:
        if graph.io == "uint8":
            model = trace(head, (features,), names, OUTPUTS)
        else:
            pixels = torch.zeros(2, *graph.input_shape)
            model = trace(head, (features, pixels), [*names, PIXELS], OUTPUTS)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, value in thresholds.items():
        initializers[name].CopyFrom(numpy_helper.from_array(value.numpy(), name))
    return model


@contextlib.contextmanager
def _distinct_thresholds(head: Head) -> Iterator[dict[str, Tensor]]:
    """Yield the head's two thresholds by name; they stand aside while it is traced.

    The exporter keeps one of several equal constants. Each threshold must stay a constant of its
    own, so that fre-calibrate can change it.
    """
    thresholds = {"image_tau": head.image_tau.clone(), "pixel_tau": head.pixel_tau.clone()}
    try:
        for number, name in enumerate(thresholds):
            getattr(head, name).fill_(0.7310586 + number * 0.0421)
        yield thresholds
    finally:
        for name, value in thresholds.items():
            getattr(head, name).copy_(value)


def join(
    trunk: onnx.ModelProto, head: onnx.ModelProto, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Put trunk and head together, clean up, and check.

    The result has batch dynamic, everything else static, outputs named and ordered as `OUTPUTS`,
    ``metadata`` in metadata_props, and has passed onnx's checker with full shape inference.
    """
    features = [value.name for value in trunk.graph.output]
    head = onnx.compose.add_prefix(head, "head.", rename_inputs=False, rename_outputs=False)
    head.ir_version = trunk.ir_version
    model = onnx.compose.merge_models(trunk, head, [(name, name) for name in features], name="fre")
    opsets = {opset.domain: opset.version for opset in model.opset_import}  # merged: each is twice
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*opset) for opset in opsets.items())
    _share_image(model.graph)
    dequantize_input(model.graph)
    sum_squares(model.graph)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def for_onnxruntime(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same graph in the form that ONNX Runtime executes best.

    OpenVINO has passes of its own, see `fre_export.openvino_ir`, and they want it as it was.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    passes = (convolve_rows(changed.graph), integer_products(changed.graph))
    if any(passes):
        onnx.checker.check_model(changed, full_check=True)
    return changed


def _share_image(graph: onnx.GraphProto) -> None:
    """Give the head, where it looks at the image itself, the very input that the trunk takes."""
    image, *pixels = graph.input
    for node in graph.node if pixels else ():
        node.input[:] = [image.name if name == PIXELS else name for name in node.input]
    del graph.input[1:]


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write one file without external data."""
    onnx.save_model(model, path)


def _features(layers: int) -> list[str]:
    return [f"features_{i}" for i in range(layers)]


def trace(
    module: nn.Module, example: tuple[Any, ...], inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """Export with a dynamic batch; ``example`` has a batch of 2: 1 would be specialised."""
    axis = {0: torch.export.Dim(BATCH, min=1)}
    shapes = tuple([axis] * len(part) if isinstance(part, list) else axis for part in example)
    with warnings.catch_warnings(), _quiet_exporter(), _out_of_place(module):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            example,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model_proto
    _strip_trace(model)
    return model


@contextlib.contextmanager
def _out_of_place(module: nn.Module) -> Iterator[None]:
    """Let no activation write over its input meanwhile: the tracer takes twice as long for those.

    The graph is the same.
    """
    inplace = [part for part in module.modules() if getattr(part, "inplace", False) is True]
    for part in inplace:
        part.inplace = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for part in inplace:
            part.inplace = True  # type: ignore[assignment]


def _strip_trace(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of its source: paths of this machine do not belong in a file."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    graph.name = "fre"
    graph.doc_string = ""


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter logs decompositions it does not know; none of them concerns our graphs."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
