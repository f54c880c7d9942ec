"""ONNX Runtime on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fre_runtime.card import OUTPUTS, Graph
from fre_runtime.engines.base import EngineInfo, Outputs, Settings
from fre_runtime.errors import EngineError


class OnnxRuntimeEngine:
    """Runs ``model.onnx`` through an ONNX Runtime session."""

    def __init__(self, path: Path, graph: Graph, settings: Settings) -> None:
        options = onnxruntime.SessionOptions()
        # Throughput: each caller's thread runs its own request, so nothing waits at a barrier.
        options.intra_op_num_threads = 1 if settings.throughput else settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Planned as one block, the tensors of a run take some 10 MiB more and no less time.
        options.enable_mem_pattern = False
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors share no public base class
            raise EngineError(f"{path}: ONNX Runtime refuses it ({error})") from error
        _check_contract(path, graph, self._session)
        self._input = graph.input_name
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.info = EngineInfo(
            engine="onnxruntime",
            version=onnxruntime.__version__,
            precision=settings.precision,
            threads=settings.threads,
            parallel=settings.threads if settings.throughput else 1,
        )

    def run(self, batch: NDArray[Any]) -> Outputs:
        """Run one batch; see `Engine.run`."""
        try:
            outputs: list[Any] = self._session.run(OUTPUTS, {self._input: batch})
        except Exception as error:
            raise EngineError(
                f"ONNX Runtime failed on {batch.dtype}{batch.shape}: {error}"
            ) from error
        return Outputs(*outputs)


_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


def _check_contract(path: Path, graph: Graph, session: onnxruntime.InferenceSession) -> None:
    inputs = session.get_inputs()
    found = (
        [i.name for i in inputs],
        list(inputs[0].shape[1:]),
        _TYPES.get(inputs[0].type),
        tuple(o.name for o in session.get_outputs()),
    )
    dtype = np.uint8 if graph.io == "uint8" else np.float32
    wanted = ([graph.input_name], list(graph.input_shape), dtype, OUTPUTS)
    if found != wanted:
        raise EngineError(f"{path}: the graph {found} disagrees with its card {wanted}")
