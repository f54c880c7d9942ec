"""The class that edge apps embed: a model directory in, results out."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_runtime.card import Card
from fre_runtime.engines.base import EngineInfo, Outputs
from fre_runtime.engines.loading import open_engine
from fre_runtime.errors import ImageError
from fre_runtime.image import MAX_PIXELS, Image, check_image, read_image
from fre_runtime.model_dir import ModelDir, open_model_dir
from fre_runtime.ordered import ordered_map
from fre_runtime.preprocess import prepare
from fre_runtime.result import Result, state_of

Source = str | Path | bytes | NDArray[np.uint8]
"""A path, an encoded image, or a uint8 array of shape (H, W, 3) in RGB order."""


class Detector:
    """Scores images with one variant of a model; safe to call from many threads.

    Parameters
    ----------
    model
        The directory that ``fre-export`` wrote.
    engine
        ``auto``, ``openvino`` or ``onnxruntime``.
    variant
        Name of a precision variant of the model.
    threads
        CPU threads; default: what affinity, CPU quota and physical cores allow.
    throughput
        Favour images per second over the latency of each; for `stream` and many callers.
    max_pixels
        Larger images are refused from their header.

    Raises
    ------
    ArtifactError
        When the model directory is incomplete, changed, or contradicts itself.
    EngineError
        When the engine does not reproduce the golden outputs.
    MissingDependencyError
        When the engine's package is not installed.

    Examples
    --------
    >>> detector = Detector("model")                            # doctest: +SKIP
    >>> result = detector("photo.jpg")                          # doctest: +SKIP
    >>> result.is_anomalous, result.score, result.boxes         # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path | ModelDir,
        engine: str = "auto",
        variant: str = "fp32",
        threads: int | None = None,
        *,
        throughput: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        directory = model if isinstance(model, ModelDir) else open_model_dir(model)
        self._engine = open_engine(directory, engine, variant, threads, throughput=throughput)
        self._graph = directory.card.graph
        self._threshold = directory.variant(variant).calibration.image
        self._max_pixels = max_pixels
        self.card: Card = directory.card
        self.variant = variant

    @property
    def info(self) -> EngineInfo:
        """What runs, and how."""
        return self._engine.info

    def __call__(self, source: Source) -> Result:
        """Score one image.

        Raises
        ------
        ImageError
            When ``source`` cannot be decoded, is too large, or is not uint8 (H, W, 3).
        """
        start = time.perf_counter()
        image = self._load(source)
        decoded = time.perf_counter()
        batch = prepare(image, self._graph)
        resized = time.perf_counter()
        outputs = self._engine.run(batch)
        inferred = time.perf_counter()
        result = self._result(outputs, (image.shape[0], image.shape[1]))
        result.timings.update(
            decode=(decoded - start) * 1e3,
            resize=(resized - decoded) * 1e3,
            infer=(inferred - resized) * 1e3,
            postprocess=(time.perf_counter() - inferred) * 1e3,
        )
        return result

    def stream(self, sources: Iterable[Source]) -> Iterator[Result]:
        """Score many images, several at a time, results in the order of ``sources``.

        At most ``2 * info.parallel`` images are taken ahead; arrays among them must not be
        changed until their result has come. An image that cannot be read raises its `ImageError`
        when its turn comes, and ends the stream; so does an error of ``sources``, after the
        results of what it had given.
        """
        workers = self.info.parallel  # as many as cores: decoding and inference both need one
        return ordered_map(self, sources, workers, ahead=2 * workers)

    def infer(self, batch: NDArray[Any]) -> Outputs:
        """Run images that are tensors already, as a serving protocol brings them.

        Parameters
        ----------
        batch
            uint8 (n, H, W, 3) or float32 (n, 3, H, W) in 0..1, as the card's graph says; see
            `fre_runtime.preprocess.prepare` for how a photo becomes one.

        Raises
        ------
        ImageError
            When dtype or shape are not the graph's.
        """
        dtype, shape = self._graph.input_dtype, self._graph.input_shape
        if batch.dtype != dtype or batch.shape[1:] != shape or not len(batch):
            raise ImageError(
                f"{self._graph.input_name} must be {dtype} of shape (n, {str(shape)[1:]}, got "
                f"{batch.dtype} of shape {batch.shape}"
            )
        return self._engine.run(np.ascontiguousarray(batch))

    def _load(self, source: Source) -> Image:
        if isinstance(source, str | Path | bytes):
            return read_image(source, self._max_pixels)
        return check_image(source)

    def _result(self, outputs: Outputs, image_size: tuple[int, int]) -> Result:
        score: Any = outputs.pred_score[0]
        return Result(
            score=float(score),
            raw_score=float(self._threshold.raw(score)),
            state=state_of(float(score)),
            image_size=image_size,
            native_map=outputs.anomaly_map[0, 0],
        )
