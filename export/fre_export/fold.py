"""From photos, or a fit of them, to a verified model directory."""

import datetime
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fre_edge.checkpoint import clear
from fre_edge.fitting import Fit, fit, update
from fre_edge.fusion import finest_grid
from fre_edge.options import FitOptions
from fre_edge.saved import save_fit
from fre_edge.strategies.base import Subspace
from fre_edge.team import ALONE, Team
from fre_export.onnx_graph import trace_trunk
from fre_export.parity import ParityError, Sample
from fre_export.quantise import check_installed
from fre_export.report import training_page
from fre_export.samples import golden_image, parity_samples
from fre_export.variants import (
    PRECISIONS,
    Built,
    Model,
    VariantError,
    build_fp32,
    build_variant,
    variant_files,
)
from fre_runtime.card import Backbone, Card, Graph, Layer, Training, Variant
from fre_runtime.engines.loading import open_engine
from fre_runtime.environment import package_versions
from fre_runtime.errors import EngineError, MemoryLimitError, UsageError
from fre_runtime.image import RESIZE_RULE, encode_image
from fre_runtime.model_dir import (
    CARD,
    GOLDEN_IMAGE,
    REPORT,
    ModelDir,
    check_writable,
    golden_outputs,
    new_directory,
    open_model_dir,
    write_manifest,
)

log = logging.getLogger(__name__)

VERSIONS = (
    "fre-edge", "torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "openvino",
    "numpy", "opencv-python-headless", "nncf",
)  # fmt: skip


@dataclass(frozen=True)
class ExportOptions:
    """What the graph looks like from outside."""

    io: str = "uint8"
    """``uint8``: `image`, uint8 (N, H, W, 3); ``float``: `input`, float32 (N, 3, H, W), 0..1."""
    map_size: str | None = None
    """``native``, or ``input`` to lift the map to H x W in the graph; None = native for uint8,
    input for float."""
    precision: str = "fp32"
    """Variants besides fp32, which is always written: ``bf16``, ``int8``, or both with a comma;
    ``auto`` tries both and keeps what is faster on this machine."""
    overwrite: bool = False
    """Replace an existing model directory."""

    def check(self) -> None:
        """Raise `UsageError` for a value that does not exist."""
        if self.io not in ("uint8", "float"):
            raise UsageError(f"io {self.io!r} does not exist; choose uint8 or float")
        if self.map_size not in (None, "native", "input"):
            raise UsageError(f"map size {self.map_size!r} does not exist; choose native or input")
        unknown = [name for name in self.variants if name not in PRECISIONS]
        if unknown:
            raise UsageError(
                f"precision {unknown[0]!r} does not exist; choose auto, or some of "
                f"{', '.join(PRECISIONS)}"
            )

    @property
    def variants(self) -> list[str]:
        """Names of the variants besides fp32."""
        if self.precision == "auto":
            return [name for name in PRECISIONS if name != "fp32"]
        names = dict.fromkeys(name.strip() for name in self.precision.split(","))
        return [name for name in names if name != "fp32"]


def export(
    images: str | Path | Sequence[Path] | Fit | None,
    out: str | Path,
    fit_options: FitOptions | None = None,
    options: ExportOptions | None = None,
    models: Sequence[str | Path] = (),
    team: Team = ALONE,
) -> ModelDir:
    """Fit (unless given a fit), fold into one graph, prove parity, write the model directory.

    Parameters
    ----------
    images
        A folder of good photos, an MVTec-layout category, a list of files, or a `Fit`; None to
        merge ``models``, no more.
    out
        The directory to write; it appears whole, or not at all.
    fit_options
        For the fit; not allowed with a `Fit`.
    options
        For the graph.
    models
        Model directories to go on from; see `fre_edge.update`. Not allowed with a `Fit`.
    team
        Processes that share the photos of the fit; see `fre_edge.fit`.

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
    MissingDependencyError
        When int8 is asked for and NNCF is not installed.
    DataError, UsageError, WeightsError
        As `fre_edge.fit` does.
    """
    options = options or ExportOptions()
    options.check()
    updated = bool(images.earlier if isinstance(images, Fit) else models)
    if updated and options.variants:
        raise UsageError(
            f"precision {options.precision!r}: only fp32 can be updated, since the earlier photos "
            "would have to pass another backbone; export the others from all photos"
        )
    if "int8" in options.variants:
        check_installed()
    out = Path(out)
    check_writable(out, overwrite=options.overwrite)
    scratch = fit_options.scratch if fit_options else None
    if scratch is not None and Path(scratch).resolve().is_relative_to(out.resolve()):
        raise UsageError(
            f"scratch {scratch} lies where {out} is to be written; take another folder"
        )
    folder = Path(images) if isinstance(images, str | Path) else None
    if isinstance(images, Fit):
        if fit_options is not None or models:
            raise UsageError("fit_options and models cannot be given with a Fit; it has its own")
        fitted = images
    elif models or images is None:
        fitted = update(models, images, fit_options, team)
    else:
        fitted = fit(images, fit_options, team)
    with new_directory(out, overwrite=options.overwrite) as temporary:
        _write(temporary, fitted, folder, options, out.absolute().name)
        written = open_model_dir(temporary)
        for name, variant in written.card.variants.items():
            for engine in variant.files:  # what every later load will do
                open_engine(written, engine, name)
    if fitted.plan.scratch is not None:
        clear(fitted.plan.scratch)
    return open_model_dir(out)


def _write(root: Path, fitted: Fit, folder: Path | None, options: ExportOptions, name: str) -> None:
    graph = graph_of(fitted, options)
    samples, source = parity_samples(folder, fitted)
    golden = Sample("the golden image", golden_image(fitted))
    trunk = trace_trunk(fitted.extractor(graph.io), graph, len(fitted.shapes))
    model = Model(root, graph, trunk, fitted, samples, source, golden, folder)
    built = {"fp32": build_fp32(model)}
    for variant in options.variants:
        try:
            built[variant] = build_variant(model, variant, built["fp32"])
        except (VariantError, ParityError, EngineError, MemoryLimitError) as error:
            said = str(error).replace(f"{root}{os.sep}", "")
            log.warning("variant %s is left out: %s", variant, said)
            _remove(root, variant_files(variant))
            continue
        _keep_what_pays(root, variant, built, asked=options.precision != "auto")
    path = root / GOLDEN_IMAGE
    path.parent.mkdir()
    path.write_bytes(encode_image(golden.image, path.suffix))
    for variant, one in built.items():
        np.savez_compressed(root / golden_outputs(variant), **one.golden._asdict())
    save_fit(fitted, root / "fit.safetensors")
    card = _card(name, fitted, graph, {key: one.variant for key, one in built.items()})
    # Names of files need not be valid Unicode; the escapes are valid JSON.
    (root / CARD).write_text(card.to_json(), encoding="utf-8", errors="backslashreplace")
    if page := training_page(card, fitted):
        (root / REPORT).write_text(page, encoding="utf-8", errors="backslashreplace")
    write_manifest(root)


def _keep_what_pays(root: Path, name: str, built: dict[str, Built], *, asked: bool) -> None:
    """Say how fast a variant is here; drop what is slower than fp32, unless it was asked for."""
    variant = built[name].variant
    for engine, ratio in variant.time_ratio.items():
        log.info("variant %s: %s takes %.2f of fp32's time here", name, engine, ratio)
    slow = [engine for engine, ratio in variant.time_ratio.items() if ratio >= 1]
    if not slow:
        return
    said = "kept, since it was asked for" if asked else "left out"
    log.warning("variant %s is not faster than fp32 here on %s: %s", name, " and ".join(slow), said)
    if asked:
        return
    _remove(root, {engine: variant.files[engine] for engine in slow})
    files = {engine: file for engine, file in variant.files.items() if engine not in slow}
    if files:
        built[name] = replace(built[name], variant=replace(variant, files=files))
    else:
        del built[name]


def _remove(root: Path, files: dict[str, str]) -> None:
    for file in files.values():
        path = root / file
        for part in (path, path.with_suffix(".bin")):
            part.unlink(missing_ok=True)
        if path.parent != root and path.parent.is_dir():
            path.parent.rmdir()


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


def _card(name: str, fitted: Fit, graph: Graph, variants: dict[str, Variant]) -> Card:
    layers = [
        Layer(
            name=layer,
            channels=shape.channels,
            height=shape.height,
            width=shape.width,
            components=sum(len(part.components) for part in parts),
            variance=_of_variance(parts, "captured"),
            shortfall=_of_variance(parts, "shortfall"),
            map_weight=map_weight,
            score_weight=score_weight,
        )
        for layer, shape, parts, map_weight, score_weight in zip(
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
        view=fitted.options.view,
        backbone=Backbone(
            name=fitted.backbone.spec.name,
            layers=list(fitted.backbone.layers),
            pool=fitted.pool,
            pool_overlap=list(fitted.options.pool_overlap or ()),
            weights=weights.source,
            weights_sha256=weights.sha256,
            weights_licence=weights.licence,
        ),
        layers=layers,
        training=Training(
            method=fitted.plan.method,
            subspace=fitted.options.subspace,
            updated=[saved.name for saved in fitted.earlier],
            images=fitted.state.count,
            scenes=fitted.scenes,
            relative=fitted.expectation is not None,
            grouping=Path(fitted.options.groups).name,
            skipped=[f"{path.name}: {reason}" for path, reason in fitted.skipped.items()],
            seed=fitted.options.seed,
        ),
        variants=variants,
        versions=package_versions(VERSIONS),
    )


def _of_variance(parts: Sequence[Subspace], name: str) -> float:
    """A fraction of the variance, over all parts of a layer."""
    weights = [part.energy for part in parts]
    values = [float(getattr(part, name)) for part in parts]
    return values[0] if len(parts) == 1 else float(np.average(values, weights=weights))
