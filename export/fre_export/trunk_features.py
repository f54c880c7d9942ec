"""Features as a variant's own trunk gives them, in the precision in which it will run."""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from fre_edge.features import FeatureShape
from fre_runtime.card import Graph
from fre_runtime.engines.base import Settings
from fre_runtime.engines.openvino import config
from fre_runtime.image import Image
from fre_runtime.ordered import ordered_map
from fre_runtime.preprocess import prepare


class TrunkFeatures:
    """A trunk compiled by OpenVINO.

    Parameters
    ----------
    path
        ONNX file: image to features.
    settings
        Threads and precision; several requests run at a time.
    """

    def __init__(self, path: Path, graph: Graph, settings: Settings) -> None:
        model = openvino.Core().read_model(path)
        image = model.inputs[0]
        model.reshape({image.get_any_name(): [1, *graph.input_shape]})
        self._compiled = openvino.compile_model(model, "CPU", config(settings))
        self._workers = self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        self._graph = graph
        self._local = threading.local()

    def __call__(
        self, images: Iterable[Image], count: int, shapes: Sequence[FeatureShape]
    ) -> list[NDArray[np.float32]]:
        """Features of ``count`` uint8 (H, W, 3) images: float32 (count, D) for each layer."""
        features = [np.empty((count, shape.dimension), np.float32) for shape in shapes]
        rows = ordered_map(self._run, images, self._workers, 2 * self._workers)
        for i, taps in enumerate(rows):
            for layer, u in zip(features, taps, strict=True):
                layer[i] = u
        return features

    def _run(self, image: Image) -> list[NDArray[np.float32]]:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        request: openvino.InferRequest = self._local.request
        request.infer([prepare(image, self._graph)])
        outputs = range(len(self._compiled.outputs))
        return [request.get_output_tensor(i).data.ravel().copy() for i in outputs]
