"""From photos, or a fit of them, to a verified model directory."""

import datetime
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fre_edge.fitting import Fit, fit
from fre_edge.fre import FRE
from fre_edge.fusion import finest_grid
from fre_edge.options import FitOptions
from fre_edge.state import save_fit
from fre_export.metadata import graph_metadata
from fre_export.onnx_graph import save_onnx
from fre_export.openvino_ir import save_ir
from fre_export.parity import prove, reference
from fre_export.samples import golden_image, parity_samples
from fre_runtime.card import Backbone, Card, Graph, Layer, Parity, Training, Variant
from fre_runtime.engines import ENGINES, Engine, Settings
from fre_runtime.engines.loading import load_engine, open_engine
from fre_runtime.environment import package_versions
from fre_runtime.errors import UsageError
from fre_runtime.image import RESIZE_RULE, encode_image
from fre_runtime.model_dir import (
    CARD,
    GOLDEN_IMAGE,
    ModelDir,
    check_writable,
    golden_outputs,
    new_directory,
    open_model_dir,
    write_manifest,
)
from fre_runtime.preprocess import prepare
from fre_runtime.threads import default_threads

log = logging.getLogger(__name__)

PRECISION = "f32"
FILES = {"openvino": "openvino/model.xml", "onnxruntime": "model.onnx"}
VERSIONS = (
    "fre-edge", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "openvino",
    "numpy", "opencv-python-headless",
)  # fmt: skip


@dataclass(frozen=True)
class ExportOptions:
    """What the graph looks like from outside."""

    io: str = "uint8"
    """``uint8``: `image`, uint8 (N, H, W, 3); ``float``: `input`, float32 (N, 3, H, W), 0..1."""
    map_size: str | None = None
    """``native``, or ``input`` to lift the map to H x W in the graph; None = native for uint8,
    input for float."""
    overwrite: bool = False
    """Replace an existing model directory."""

    def check(self) -> None:
        """Raise `UsageError` for a value that does not exist."""
        if self.io not in ("uint8", "float"):
            raise UsageError(f"io {self.io!r} does not exist; choose uint8 or float")
        if self.map_size not in (None, "native", "input"):
            raise UsageError(f"map size {self.map_size!r} does not exist; choose native or input")


def export(
    images: str | Path | Sequence[Path] | Fit,
    out: str | Path,
    fit_options: FitOptions | None = None,
    options: ExportOptions | None = None,
) -> ModelDir:
    """Fit (unless given a fit), fold into one graph, prove parity, write the model directory.

    Parameters
    ----------
    images
        A folder of good photos, an MVTec-layout category, a list of files, or a `Fit`.
    out
        The directory to write; it appears whole, or not at all.
    fit_options
        For the fit; not allowed with a `Fit`.
    options
        For the graph.

    Returns
    -------
    ModelDir
        The written directory, read back and verified.

    Raises
    ------
    ParityError
        When an engine disagrees with PyTorch; nothing is left behind.
    OutputError
        When ``out`` exists or cannot be written.
    DataError, UsageError, WeightsError
        As `fre_edge.fit` does.
    """
    options = options or ExportOptions()
    options.check()
    out = Path(out)
    check_writable(out, overwrite=options.overwrite)
    folder = Path(images) if isinstance(images, str | Path) else None
    if isinstance(images, Fit):
        if fit_options is not None:
            raise UsageError("fit_options cannot be given with a Fit; it has its own")
        fitted = images
    else:
        fitted = fit(images, fit_options)
    with new_directory(out, overwrite=options.overwrite) as temporary:
        _write(temporary, fitted, folder, options, out.absolute().name)
        for engine in ENGINES:  # what every later load will do
            open_engine(open_model_dir(temporary), engine)
    return open_model_dir(out)


def _write(root: Path, fitted: Fit, folder: Path | None, options: ExportOptions, name: str) -> None:
    graph = graph_of(fitted, options)
    lift_to = fitted.size if graph.map_size == "input" else None
    module = fitted.module(graph.io, lift_to)
    metadata = graph_metadata(graph, fitted.calibration, PRECISION)
    log.info("folding into one ONNX graph")
    save_onnx(module, graph, metadata, root / FILES["onnxruntime"])
    log.info("converting to OpenVINO IR")
    save_ir(root / FILES["onnxruntime"], metadata, root / FILES["openvino"])
    settings = Settings(default_threads(), PRECISION)
    engines = {
        engine: load_engine(engine, root / FILES[engine], graph, settings) for engine in ENGINES
    }
    parity = _prove(module, engines, graph, fitted, folder)
    _write_golden(root, module, graph, fitted)
    save_fit(fitted, root / "fit.safetensors")
    variant = Variant(PRECISION, FILES, fitted.calibration, parity)
    card = _card(name, fitted, graph, variant)
    # Names of files need not be valid Unicode; the escapes are valid JSON.
    (root / CARD).write_text(card.to_json(), encoding="utf-8", errors="backslashreplace")
    write_manifest(root)


def graph_of(fitted: Fit, options: ExportOptions) -> Graph:
    """Describe the graph that ``options`` ask for."""
    map_size = options.map_size or ("native" if options.io == "uint8" else "input")
    height, width = fitted.size
    map_height, map_width = (height, width) if map_size == "input" else finest_grid(fitted.shapes)
    return Graph(
        io=options.io,
        height=height,
        width=width,
        map_height=map_height,
        map_width=map_width,
        map_size=map_size,
        score=fitted.options.score,
        resize=RESIZE_RULE,
    )


def _prove(
    module: FRE, engines: dict[str, Engine], graph: Graph, fitted: Fit, folder: Path | None
) -> Parity:
    samples, source = parity_samples(folder, fitted)
    expected = reference(module, graph, samples)
    parity = prove(expected, engines, graph, fitted.calibration, samples, source)
    worst = max(parity.score_error.values())
    log.info(
        "parity on %d %s: raw scores within %.1e, maps within %.1e, every label the same",
        parity.images,
        parity.source,
        worst,
        max(parity.map_error.values()),
    )
    return parity


def _write_golden(root: Path, module: FRE, graph: Graph, fitted: Fit) -> None:
    image = golden_image(fitted)
    path = root / GOLDEN_IMAGE
    path.parent.mkdir()
    path.write_bytes(encode_image(image, path.suffix))
    with torch.inference_mode():
        outputs = module(torch.from_numpy(prepare(image, graph)))
    arrays = {key: value.numpy() for key, value in outputs._asdict().items()}
    np.savez_compressed(root / golden_outputs("fp32"), **arrays)


def _card(name: str, fitted: Fit, graph: Graph, variant: Variant) -> Card:
    layers = [
        Layer(
            name=layer,
            channels=shape.channels,
            height=shape.height,
            width=shape.width,
            components=len(subspace.components),
            variance=subspace.captured,
            map_weight=map_weight,
            score_weight=score_weight,
        )
        for layer, shape, subspace, map_weight, score_weight in zip(
            fitted.backbone.layers,
            fitted.shapes,
            fitted.subspaces,
            fitted.fusion.map_weights,
            fitted.fusion.score_weights,
            strict=True,
        )
    ]
    weights = fitted.backbone.weights
    return Card(
        name=name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        graph=graph,
        backbone=Backbone(
            name=fitted.backbone.spec.name,
            layers=list(fitted.backbone.layers),
            pool=fitted.pool,
            weights=weights.source,
            weights_sha256=weights.sha256,
            weights_licence=weights.licence,
        ),
        layers=layers,
        training=Training(
            method="pca",
            images=len(fitted.photos),
            scenes=fitted.scenes,
            grouping=Path(fitted.options.groups).name,
            skipped=[f"{path.name}: {reason}" for path, reason in fitted.skipped.items()],
            seed=fitted.options.seed,
        ),
        variants={"fp32": variant},
        versions=package_versions(VERSIONS),
    )
