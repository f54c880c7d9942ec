"""From the FRE module to one self-contained, checked ONNX file."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
import torch

from fre_edge.fre import FRE
from fre_export.passes.dequantize_input import dequantize_input
from fre_export.passes.sum_squares import sum_squares
from fre_runtime.card import OUTPUTS, Graph

OPSET = 18
BATCH = "batch"
"""Name of the dynamic axis."""


def save_onnx(module: FRE, graph: Graph, metadata: Mapping[str, str], path: Path) -> None:
    """Trace ``module`` and write it to ``path``.

    One file without external data, batch dynamic, everything else static, outputs named and
    ordered as `OUTPUTS`, ``metadata`` in metadata_props; passed through onnx's checker with full
    shape inference.
    """
    # A batch of 2: with 1 the exporter would specialise the dynamic axis.
    shape = (2, *graph.input_shape)
    example = torch.zeros(shape, dtype=torch.uint8 if graph.io == "uint8" else torch.float32)
    with warnings.catch_warnings(), _quiet_exporter():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            input_names=[graph.input_name],
            output_names=list(OUTPUTS),
            dynamic_shapes={"image": {0: torch.export.Dim(BATCH, min=1)}},
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model_proto
    _strip_trace(model)
    dequantize_input(model.graph)
    sum_squares(model.graph)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)


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
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
