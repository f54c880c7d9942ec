"""The class that edge apps embed: a model directory in, results out."""

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fre_runtime.card import Card
from fre_runtime.engines.base import EngineInfo, Outputs
from fre_runtime.engines.loading import open_engine
from fre_runtime.errors import ImageError
from fre_runtime.geometry import Plan
from fre_runtime.image import MAX_PIXELS, Image, check_image, read_image
from fre_runtime.merging import Merge
from fre_runtime.model_dir import ModelDir, open_model_dir
from fre_runtime.ordered import ordered_map
from fre_runtime.preprocess import prepare
from fre_runtime.rect import Frame, Rect
from fre_runtime.result import Placement, Result, Tile, state_of

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
        Favour images per second over the latency of each; for `stream` and many callers. A model
        of tiles always does: the tiles of one image are many.
    max_pixels
        Larger files are refused from their header; arrays are taken at any size.

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
        self._view = directory.card.view
        throughput = throughput or bool(self._view.tile)
        self._engine = open_engine(directory, engine, variant, threads, throughput=throughput)
        self._graph = directory.card.graph
        self._plan: Plan | None = None
        self._threshold = directory.variant(variant).calibration.image
        self.max_pixels = max_pixels
        self.card: Card = directory.card
        self.variant = variant

    @property
    def info(self) -> EngineInfo:
        """What runs, and how."""
        return self._engine.info

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the graph file says of itself, e.g. its thresholds and Model API's keys."""
        return self._engine.metadata

    def __call__(self, source: Source) -> Result:
        """Score one image.

        Raises
        ------
        ImageError
            When ``source`` cannot be decoded, is too large, or is not uint8 (H, W, 3); when a
            region of the model's view lies outside of it, or it is smaller than a tile.
        """
        start = time.perf_counter()
        image = self._load(source)
        decoded = time.perf_counter()
        if not self._view.is_whole:
            result = self._through_view(image)
            result.timings["decode"] = (decoded - start) * 1e3
            return result
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
        # Tiles keep the engine busy alone.
        workers = 1 if self._view.tile else self.info.parallel
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
            return read_image(source, self.max_pixels)
        return check_image(source)

    def _through_view(self, image: Image) -> Result:
        """Score an image that does not go into the model as it is."""
        start = time.perf_counter()
        plan = self._plan_for(image.shape[0], image.shape[1])
        if not self._view.tile:
            piece = plan.input(image, plan.region, self._graph.height, self._graph.width)
            batch = prepare(piece, self._graph)
            resized = time.perf_counter()
            outputs = self._engine.run(batch)
            inferred = time.perf_counter()
            seen = _Seen(float(outputs.pred_score[0]), outputs.anomaly_map[0, 0], ())
        else:
            resized = start
            seen = self._through_tiles(image, plan)
            inferred = time.perf_counter()
        frame = plan.frame(plan.region, self._graph.height, self._graph.width)
        result = Result(
            score=seen.score,
            raw_score=float(self._threshold.raw(np.array(seen.score))),
            state=state_of(seen.score),
            image_size=plan.size,
            native_map=seen.anomaly_map,
            placement=Placement(plan, Frame(*plan.region) if seen.tiles else frame),
            tiles=seen.tiles,
        )
        result.timings.update(
            resize=(resized - start) * 1e3,
            infer=(inferred - resized) * 1e3,
            postprocess=(time.perf_counter() - inferred) * 1e3,
        )
        return result

    def _through_tiles(self, image: Image, plan: Plan) -> "_Seen":
        """Score the tiles, several at once; the image's score is the largest of theirs.

        One by one, not in batches: a batch takes both engines more CPU time a tile, not less.
        """
        size = self._graph.height, self._graph.width

        def run(tile: Rect) -> Outputs:
            return self._engine.run(prepare(plan.input(image, tile, *size), self._graph))

        workers = self.info.parallel
        merge = Merge(plan, *size, (self._graph.map_height, self._graph.map_width))
        scored = []
        for tile, outputs in zip(
            plan.tiles, ordered_map(run, plan.tiles, workers, 2 * workers), strict=True
        ):
            scored.append(Tile(*tile, float(outputs.pred_score[0])))
            merge.add(tile, outputs.anomaly_map[0, 0])
        score = float(np.max([tile.score for tile in scored]))  # NaN where one of them is
        return _Seen(score, merge.result(), tuple(scored))

    def _plan_for(self, height: int, width: int) -> Plan:
        plan = self._plan  # read once: another thread may replace it
        if plan is None or plan.size != (height, width):
            plan = self._plan = self._view.plan(height, width)
        return plan

    def _result(self, outputs: Outputs, image_size: tuple[int, int]) -> Result:
        score: Any = outputs.pred_score[0]
        return Result(
            score=float(score),
            raw_score=float(self._threshold.raw(score)),
            state=state_of(float(score)),
            image_size=image_size,
            native_map=outputs.anomaly_map[0, 0],
        )


class _Seen(NamedTuple):
    """What the graph says of an image in one piece or in tiles."""

    score: float
    anomaly_map: NDArray[np.float32]
    tiles: tuple[Tile, ...]
