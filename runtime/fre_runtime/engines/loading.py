"""Choosing an engine and opening a variant of a model directory with it."""

import ctypes
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fre_runtime.card import Graph
from fre_runtime.engines.base import Engine, Settings
from fre_runtime.errors import (
    ArtifactError,
    EngineError,
    ImageError,
    MissingDependencyError,
    UsageError,
)
from fre_runtime.image import RESIZE_RULE, read_image
from fre_runtime.model_dir import GOLDEN_IMAGE, ModelDir, golden_outputs
from fre_runtime.preprocess import prepare
from fre_runtime.threads import default_threads

ENGINES: Mapping[str, str] = {"openvino": "OpenVinoEngine", "onnxruntime": "OnnxRuntimeEngine"}
"""Class of each engine, in the order in which ``auto`` prefers them."""

SCORE_TOLERANCE = {"f32": 1e-3, "bf16": 0.1, "int8": 0.1}
"""Largest relative difference of the raw golden score that a new machine may show."""

MAP_TOLERANCE = {"f32": 5e-3, "bf16": 0.05, "int8": 0.05}
"""Largest difference of the calibrated golden map."""


def installed_engines() -> list[str]:
    """Names of the engines whose packages are installed, the preferred one first."""
    return [name for name in ENGINES if importlib.util.find_spec(name) is not None]


def resolve_engine(engine: str) -> str:
    """Turn ``auto`` into the preferred installed engine; check any other name.

    Raises
    ------
    UsageError
        When there is no engine of that name.
    MissingDependencyError
        When its package is not installed.
    """
    if engine not in ("auto", *ENGINES):
        raise UsageError(f"engine {engine!r} does not exist; choose auto, {', '.join(ENGINES)}")
    installed = installed_engines()
    if engine == "auto" and installed:
        return installed[0]
    if engine in installed:
        return engine
    wanted = "no inference engine is" if engine == "auto" else f"engine {engine!r} is not"
    extra = "openvino" if engine == "auto" else engine
    raise MissingDependencyError(f"{wanted} installed; run: pip install 'fre-edge[{extra}]'")


def open_engine(
    model: ModelDir,
    engine: str = "auto",
    variant: str = "fp32",
    threads: int | None = None,
    *,
    throughput: bool = False,
) -> Engine:
    """Load one variant of a model into an engine and prove it on the golden image.

    Raises
    ------
    UsageError
        For an engine or variant that does not exist, or threads outside 1..CPUs.
    MissingDependencyError
        When the engine's package is not installed.
    ArtifactError
        When the graph's own thresholds differ from the card's.
    EngineError
        When the engine refuses the graph or does not reproduce the golden outputs.
    """
    check_threads(threads)
    engine = resolve_engine(engine)
    chosen = model.variant(variant)
    if engine not in chosen.files:
        raise ArtifactError(f"{model.path}: variant {variant!r} has no file for engine {engine!r}")
    if chosen.precision not in SCORE_TOLERANCE:
        raise ArtifactError(
            f"{model.path}: precision {chosen.precision!r} of variant {variant!r} is unknown to "
            f"this version, which knows {', '.join(SCORE_TOLERANCE)}"
        )
    settings = Settings(threads or default_threads(), chosen.precision, throughput)
    loaded = load_engine(engine, model.path / chosen.files[engine], model.card.graph, settings)
    _check_card(model, variant, loaded.metadata)
    self_test(loaded, model, variant)
    _give_memory_back()
    return loaded


def _give_memory_back() -> None:
    """Hand back what loading has freed, which glibc keeps for a next time: 6 to 20 MiB."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


def check_threads(threads: int | None) -> None:
    """Raise `UsageError` for threads outside 1..CPUs; None stands for the default."""
    cpus = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= cpus:
        raise UsageError(f"threads must lie in 1..{cpus}, the CPUs of this machine, got {threads}")


def load_engine(engine: str, path: Path, graph: Graph, settings: Settings) -> Engine:
    """Load a graph file into the engine called ``engine``; proves nothing."""
    module = importlib.import_module(f"fre_runtime.engines.{engine}")
    loaded: Engine = getattr(module, ENGINES[engine])(path, graph, settings)
    if loaded.info.precision != settings.precision:
        raise EngineError(
            f"{path}: {engine} runs {loaded.info.precision} here, verified was "
            f"{settings.precision}; use another variant on this machine"
        )
    return loaded


def _check_card(model: ModelDir, variant: str, metadata: Mapping[str, str]) -> None:
    """Compare what the card and the graph say of the same things."""
    graph, chosen = model.card.graph, model.variant(variant)
    calibration = chosen.calibration
    if (graph.resize, graph.colour) != (RESIZE_RULE, "RGB"):
        raise ArtifactError(
            f"{model.path}: the card asks for {graph.resize} and {graph.colour}, this version "
            f"prepares images by {RESIZE_RULE} and RGB"
        )
    for key, value in (
        *calibration.metadata().items(),
        *model.card.view.metadata().items(),
        ("fre_score", graph.score),
        ("fre_precision", chosen.precision),
    ):
        if metadata.get(key) != value:
            raise ArtifactError(
                f"{model.path}: the card says {key} = {value}, the graph "
                f"{metadata.get(key)!r}; copy the directory again, or export the model again"
            )


def self_test(engine: Engine, model: ModelDir, variant: str) -> None:
    """Run the golden image and compare with the outputs stored at export.

    Raises
    ------
    ArtifactError
        When the golden files cannot be read.
    EngineError
        When score, label or map differ by more than rounding does.
    """
    graph = model.card.graph
    try:
        image = read_image(model.path / GOLDEN_IMAGE)
        with np.load(model.path / golden_outputs(variant), allow_pickle=False) as golden:
            score, label = float(golden["pred_score"][0]), bool(golden["pred_label"][0])
            anomaly_map = np.asarray(golden["anomaly_map"], np.float32)
    except (ImageError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ArtifactError(f"{model.path}: the golden files are damaged ({error})") from error
    if anomaly_map.shape != (1, 1, graph.map_height, graph.map_width):
        raise ArtifactError(f"{model.path}: the golden map {anomaly_map.shape} is not the card's")
    got = engine.run(prepare(image, graph))
    chosen = model.variant(variant)
    threshold, tolerance = chosen.calibration.image, SCORE_TOLERANCE[chosen.precision]
    raw, expected = (float(threshold.raw(np.array(p))) for p in (got.pred_score[0], score))
    worst = np.inf
    if got.anomaly_map.shape == anomaly_map.shape:
        worst = float(np.abs(got.anomaly_map - anomaly_map).max())
    # Beyond the relative tolerance only what float32 cannot hold is forgiven.
    lost = 4 * float(threshold.resolution(np.array(score)))
    allowed = (tolerance + lost) * expected + 1e-3 * tolerance * threshold.value
    # Where less than 32 bits decide, a score on the threshold may fall to either side.
    undecided = chosen.precision != "f32" and abs(expected - threshold.value) <= allowed
    if (
        not abs(raw - expected) <= allowed
        or (bool(got.pred_label[0]) != label and not undecided)
        or not worst <= MAP_TOLERANCE[chosen.precision]
    ):
        raise EngineError(
            f"{engine.info.engine} {engine.info.version} gives the golden image the raw score "
            f"{raw:.6g}, {expected:.6g} expected (map off by {worst:.2g}); this machine or "
            "engine version does not reproduce what was verified, so nothing is scored"
        )
