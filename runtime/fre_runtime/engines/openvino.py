"""OpenVINO on the CPU."""

import mmap
import queue
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from fre_runtime.card import OUTPUTS, Graph
from fre_runtime.engines.base import EngineInfo, Outputs, Settings
from fre_runtime.errors import EngineError


class OpenVinoEngine:
    """Runs an IR file through an OpenVINO compiled model."""

    def __init__(self, path: Path, graph: Graph, settings: Settings) -> None:
        core = openvino.Core()
        try:
            self._weights, weights = _map(path.with_suffix(".bin"))
            model = core.read_model(path.read_text(encoding="utf-8"), weights)
        except Exception as error:
            raise EngineError(f"{path}: OpenVINO refuses it ({error})") from error
        _check_contract(path, graph, model)
        self.metadata = _metadata(model)
        try:
            self._compiled = core.compile_model(model, "CPU", config(settings))
        except Exception as error:
            raise EngineError(f"{path}: OpenVINO cannot compile it ({error})") from error
        if sys.platform == "linux":
            # The kernels have packed most weights anew, so their pages of the file serve no more.
            # Those that are used where they lie come back from the file by themselves.
            self._weights.madvise(mmap.MADV_DONTNEED)
        parallel = 1
        if settings.throughput:
            # One that runs and one that waits for each stream: none idles while Python prepares.
            parallel = 2 * self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._idle: queue.SimpleQueue[openvino.InferRequest] = queue.SimpleQueue()
        for _ in range(parallel):
            self._idle.put(self._compiled.create_infer_request())
        self.info = EngineInfo(
            engine="openvino",
            version=openvino.get_version().split("-")[0],
            precision=executed_precision(self._compiled),
            threads=settings.threads,
            parallel=parallel,
        )

    def run(self, batch: NDArray[Any]) -> Outputs:
        """Run one batch; see `Engine.run`. Callers beyond the idle requests wait their turn.

        The graph takes one image at a time, so those of a batch go one after the other.
        """
        if len(batch) == 1:
            return self._run_one(batch)
        each = [self._run_one(batch[i : i + 1]) for i in range(len(batch))]
        return Outputs(*(np.concatenate(parts) for parts in zip(*each, strict=True)))

    def _run_one(self, batch: NDArray[Any]) -> Outputs:
        request = self._idle.get()
        try:
            image = request.get_input_tensor().data
            if (batch.dtype, batch.shape) != (image.dtype, image.shape):
                raise EngineError(
                    f"the graph takes {image.dtype}{image.shape}, got {batch.dtype}{batch.shape}"
                )
            # A copy into the request's own memory costs less than binding another array to it.
            image[...] = batch
            request.infer()
            # Copies: the request's own memory is overwritten by its next user.
            return Outputs(*(request.get_output_tensor(i).data.copy() for i in range(len(OUTPUTS))))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed on {batch.dtype}{batch.shape}: {error}") from error
        finally:
            self._idle.put(request)


def config(settings: Settings) -> dict[str, Any]:
    """OpenVINO's options for ``settings``."""
    return {
        "PERFORMANCE_HINT": "THROUGHPUT" if settings.throughput else "LATENCY",
        # Without this, AMX and AVX512-BF16 processors silently run bf16: scores move by 1-15%.
        # The 8 bits of int8 are in the graph itself; the hint is for what they leave out.
        "INFERENCE_PRECISION_HINT": "f32" if settings.precision == "int8" else settings.precision,
        "INFERENCE_NUM_THREADS": settings.threads,
        # Pinned threads of several processes would all sit on the same cores.
        "ENABLE_CPU_PINNING": False,
    }


def _map(path: Path) -> tuple[mmap.mmap, openvino.Tensor]:
    """The weights of an IR, mapped; the mapping must outlive whatever is compiled from them.

    Copy on write, because OpenVINO takes writable memory only; nothing writes to it. What others
    write into the file in place shows up here all the same, as in any mapping.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return mapped, openvino.Tensor(np.frombuffer(mapped, np.uint8), shared_memory=True)


def _metadata(model: openvino.Model) -> dict[str, str]:
    if not model.has_rt_info("model_info"):
        return {}
    info = model.get_rt_info("model_info").value
    return {key: model.get_rt_info(["model_info", key]).astype(str) for key in info}


def _check_contract(path: Path, graph: Graph, model: openvino.Model) -> None:
    shapes = [[d.get_length() for d in list(i.get_partial_shape())[1:]] for i in model.inputs]
    found = (
        [i.get_any_name() for i in model.inputs],
        shapes,
        [i.get_element_type().to_dtype() for i in model.inputs],
        tuple(o.get_any_name() for o in model.outputs),
    )
    dtype = np.dtype(np.uint8 if graph.io == "uint8" else np.float32)
    wanted = ([graph.input_name], [list(graph.input_shape)], [dtype], OUTPUTS)
    if found != wanted:
        raise EngineError(f"{path}: the graph {found} disagrees with its card {wanted}")


def executed_precision(compiled: openvino.CompiledModel) -> str:
    """The precision in which most convolutions run: ``f32``, ``int8``...

    Without any, most matrix products. These are not counted beside convolutions: a product in
    float32 with weights of 8 bits calls itself ``i8``, and a model of regions has many.
    """
    by_type: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        kind = info["layerType"].astype(str)
        if kind in ("Convolution", "FullyConnected", "MatMul"):
            found = str(info["runtimePrecision"].astype(str))
            by_type[kind == "Convolution"]["int8" if found in ("i8", "u8") else found] += 1
    counts = by_type[True] or by_type[False]
    return counts.most_common(1)[0][0] if counts else "unknown"
