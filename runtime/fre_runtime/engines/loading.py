"""Choosing an engine and opening a variant of a model directory with it."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fre_runtime.card import Graph
from fre_runtime.engines.base import Engine, Settings
from fre_runtime.errors import ArtifactError, EngineError, MissingDependencyError, UsageError
from fre_runtime.image import read_image
from fre_runtime.model_dir import GOLDEN_IMAGE, ModelDir, golden_outputs
from fre_runtime.preprocess import prepare
from fre_runtime.threads import default_threads

ENGINES: Mapping[str, str] = {"openvino": "OpenVinoEngine", "onnxruntime": "OnnxRuntimeEngine"}
"""Class of each engine, in the order in which ``auto`` prefers them."""

SCORE_TOLERANCE = 1e-3
"""Largest relative difference of the raw golden score that a new machine may show."""

MAP_TOLERANCE = 5e-3
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
        For an engine or variant that does not exist, or fewer than 1 thread.
    MissingDependencyError
        When the engine's package is not installed.
    ArtifactError
        When the graph's own thresholds differ from the card's.
    EngineError
        When the engine refuses the graph or does not reproduce the golden outputs.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, got {threads}")
    engine = resolve_engine(engine)
    chosen = model.variant(variant)
    if engine not in chosen.files:
        raise ArtifactError(f"{model.path}: variant {variant!r} has no file for engine {engine!r}")
    settings = Settings(threads or default_threads(), chosen.precision, throughput)
    loaded = load_engine(engine, model.path / chosen.files[engine], model.card.graph, settings)
    _check_thresholds(model, variant, loaded.metadata)
    self_test(loaded, model, variant)
    return loaded


def load_engine(engine: str, path: Path, graph: Graph, settings: Settings) -> Engine:
    """Load a graph file into the engine called ``engine``; proves nothing."""
    module = importlib.import_module(f"fre_runtime.engines.{engine}")
    loaded: Engine = getattr(module, ENGINES[engine])(path, graph, settings)
    if loaded.info.precision != settings.precision:
        raise EngineError(
            f"{path}: {engine} runs {loaded.info.precision}, verified was {settings.precision}"
        )
    return loaded


def _check_thresholds(model: ModelDir, variant: str, metadata: Mapping[str, str]) -> None:
    calibration = model.variant(variant).calibration
    for key, value in (
        ("fre_image_threshold", calibration.image.value),
        ("fre_image_spread", calibration.image.spread),
        ("fre_pixel_threshold", calibration.pixel.value),
        ("fre_pixel_spread", calibration.pixel.spread),
    ):
        if float(metadata.get(key, "nan")) != value:
            raise ArtifactError(
                f"{model.path}: the card says {key} = {value!r}, the graph "
                f"{metadata.get(key)!r}; copy the directory again, or export the model again"
            )


def self_test(engine: Engine, model: ModelDir, variant: str) -> None:
    """Run the golden image and compare with the outputs stored at export.

    Raises
    ------
    EngineError
        When score, label or map differ by more than rounding does.
    """
    image = read_image(model.path / GOLDEN_IMAGE)
    got = engine.run(prepare(image, model.card.graph))
    with np.load(model.path / golden_outputs(variant), allow_pickle=False) as golden:
        score, label, anomaly_map = (
            golden[name] for name in ("pred_score", "pred_label", "anomaly_map")
        )
    threshold = model.variant(variant).calibration.image
    raw, expected = threshold.raw(got.pred_score)[0], threshold.raw(score)[0]
    worst = float(np.abs(got.anomaly_map - anomaly_map).max())
    if (
        not abs(raw - expected) <= SCORE_TOLERANCE * expected
        or got.pred_label[0] != label[0]
        or not worst <= MAP_TOLERANCE
    ):
        raise EngineError(
            f"{model.path}: {engine.info.engine} {engine.info.version} gives the golden image the "
            f"raw score {raw:.6g}, {expected:.6g} expected (map off by {worst:.2g}); this machine "
            "or engine version does not reproduce what was verified, so nothing is scored"
        )
