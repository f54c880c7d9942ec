"""What fre-bench times: one model, engine, variant and thread count, in one scope."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fre_runtime.detector import Detector
from fre_runtime.engines.base import EngineInfo
from fre_runtime.engines.loading import open_engine
from fre_runtime.image import MAX_PIXELS, Image, encode_image
from fre_runtime.latency import (
    Budget,
    Call,
    Measurement,
    Stages,
    measure_latency,
    measure_stream,
    measure_throughput,
)
from fre_runtime.model_dir import ModelDir
from fre_runtime.preprocess import prepare

SCOPES = ("graph", "frame", "file")
STAGES = ("decode", "resize", "infer", "postprocess")


@dataclass(frozen=True)
class Side:
    """One of the things compared."""

    name: Path
    """The model as the user typed it."""
    model: ModelDir
    engine: str
    variant: str
    threads: int | None
    throughput: bool
    max_pixels: int = MAX_PIXELS

    def detector(self) -> Detector:
        """The detector that is timed, and that the quality gate scores with."""
        return Detector(
            self.model,
            self.engine,
            self.variant,
            self.threads,
            throughput=self.throughput,
            max_pixels=self.max_pixels,
        )


@dataclass(frozen=True)
class Photo:
    """What is fed."""

    image: Image
    """As decoded, uint8 (H, W, 3); scope graph takes it."""
    frame: Image
    """As the camera would give it, uint8 (H, W, 3); scopes frame and file take it."""


@dataclass(frozen=True)
class Job:
    """A loaded side and what one call of it does."""

    side: Side
    scope: str
    info: EngineInfo
    call: Call
    stream: Callable[[Iterator[None]], Iterable[Stages]] | None = None
    """The pipeline for many frames, where the scope has one."""


def open_job(side: Side, scope: str, photo: Photo) -> Job:
    """Load ``side`` and prepare its input for ``scope``."""
    if scope == "graph":
        engine = open_engine(
            side.model, side.engine, side.variant, side.threads, throughput=side.throughput
        )
        tensor = prepare(photo.image, side.model.card.graph)
        return Job(side, scope, engine.info, lambda: engine.run(tensor))
    detector = side.detector()
    source = photo.frame if scope == "frame" else encode_image(photo.frame, ".jpg")

    def call() -> Stages:
        return stages_of(detector(source).timings)

    def stream(ticks: Iterator[None]) -> Iterator[Stages]:
        return (stages_of(r.timings) for r in detector.stream(source for _ in ticks))

    return Job(side, scope, detector.info, call, stream)


def stages_of(timings: Stages) -> Stages:
    """The stages among a result's timings, in their order; 0 for one that did not happen."""
    return {stage: timings.get(stage, 0.0) for stage in STAGES}


def measure(job: Job, budget: Budget) -> Measurement:
    """Time one job in the scenario that it was loaded for.

    Throughput of whole frames goes through ``Detector.stream``, the pipeline that users get; the
    bare graph has none, so as many callers as it has requests keep it busy.
    """
    if not job.side.throughput:
        return measure_latency(job.call, budget)
    if job.stream is not None:
        return measure_stream(job.stream, job.call, budget)
    return measure_throughput(job.call, budget, job.info.parallel)
