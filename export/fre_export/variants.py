"""The precision variants of a model: built, proved, held against fp32, and timed."""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import openvino

from fre_edge.extraction import OpenVinoTrunk
from fre_edge.fitting import Fit
from fre_export.metadata import graph_metadata, onnx_props
from fre_export.onnx_graph import for_onnxruntime, join, save_onnx, trace_head
from fre_export.openvino_ir import save_ir
from fre_export.parity import Sample, prove, reference, reference_head
from fre_export.quantise import SAMPLES, quantise
from fre_runtime.card import Accuracy, Graph, Parity, Variant
from fre_runtime.engines import ENGINES, Engine, Outputs, Settings
from fre_runtime.engines.loading import load_engine
from fre_runtime.errors import DataError, FreError, ImageError
from fre_runtime.files import LabelledImage, labelled_images
from fre_runtime.harness.gate import MAX_AUROC_LOSS, MAX_REJECT_CHANGE, ROUNDING
from fre_runtime.image import read_image
from fre_runtime.latency import Budget, measure_pair
from fre_runtime.metrics import auroc
from fre_runtime.photos import PhotoReader
from fre_runtime.preprocess import prepare
from fre_runtime.threads import default_threads

log = logging.getLogger(__name__)

PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "int8"}
"""What is executed, by the name of the variant."""

MIN_RANK_CORRELATION = 0.95
"""Least agreement of the held-out scores' order with fp32's; the gate where nothing is labelled."""

TIMING = Budget(seconds=2.0, frames=200, cap=8.0)


class VariantError(FreError, RuntimeError):
    """A precision variant does not pass its gate, or this machine cannot execute it."""


@dataclass(frozen=True)
class Model:
    """What all variants of one model have in common."""

    root: Path
    """Folder that they are written to."""
    graph: Graph
    trunk: onnx.ModelProto
    """Image to features, float32."""
    fitted: Fit
    """On the features of ``trunk``."""
    samples: list[Sample]
    """Photos for the parity proof."""
    source: str
    """What they are."""
    golden: Sample
    """The photo of the self-test."""
    folder: Path | None
    """Where the photos came from; a test folder in it is used to compare accuracy."""


@dataclass(frozen=True)
class Built:
    """A variant that has been written."""

    variant: Variant
    fitted: Fit
    engines: dict[str, Engine]
    golden: Outputs
    """Expected outputs for the golden photo."""


def build_fp32(model: Model) -> Built:
    """Write the float32 variant and prove it against PyTorch."""
    module = model.fitted.module(model.graph.io, _lift_to(model))
    expected = reference(module, model.graph, [*model.samples, model.golden])
    return _build(model, "fp32", model.trunk, model.fitted, expected, tuple(ENGINES))


def build_variant(model: Model, name: str, fp32: Built) -> Built:
    """Write the variant ``name``: the same fit, thresholds from its own features.

    Raises
    ------
    VariantError
        When this machine does not execute the precision, or the gate is not passed.
    ParityError
        When an engine disagrees with the reference.
    """
    precision = PRECISIONS[name]
    log.info("variant %s: extracting features", name)
    trunk = model.trunk
    if precision == "int8":
        trunk = quantise(trunk, _quantisation_inputs(model))
    run = _runner(trunk, precision, model.graph)
    seen = model.fitted.gather(run)
    fitted = model.fitted.recalibrate(seen)
    shown = [run(sample.image) for sample in (*model.samples, model.golden)]
    layers = [np.stack(layer) for layer in zip(*shown, strict=True)]
    expected = reference_head(fitted.head(_lift_to(model)), layers, fitted.shapes)
    # ONNX Runtime has no bf16 on the CPU.
    engines = ("openvino",) if precision == "bf16" else tuple(ENGINES)
    built = _build(model, name, trunk, fitted, expected, engines)
    accuracy = _accuracy(model, fp32, built)
    check_gate(name, accuracy)
    ratios = _time_ratios(model, fp32, built)
    variant = Variant(
        precision, built.variant.files, fitted.calibration, built.variant.parity, accuracy, ratios
    )
    return Built(variant, fitted, built.engines, built.golden)


def _runner(trunk: onnx.ModelProto, precision: str, graph: Graph) -> OpenVinoTrunk:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trunk.onnx"
        save_onnx(trunk, path)
        model = openvino.Core().read_model(path)
        model.reshape({graph.input_name: [1, *graph.input_shape]})
        return OpenVinoTrunk(model, precision, lambda image: prepare(image, graph))


def check_gate(name: str, accuracy: Accuracy) -> None:
    """Raise `VariantError` where a variant is worth less than fp32."""
    if accuracy.rank_correlation < MIN_RANK_CORRELATION:
        raise VariantError(
            f"{name}: orders the held-out photos with a correlation of "
            f"{accuracy.rank_correlation:.3f} with fp32, {MIN_RANK_CORRELATION:g} is the least"
        )
    if accuracy.image_auroc is not None and accuracy.image_auroc_fp32 is not None:
        loss = accuracy.image_auroc_fp32 - accuracy.image_auroc
        if loss > MAX_AUROC_LOSS + ROUNDING:
            raise VariantError(
                f"{name}: image AUROC {accuracy.image_auroc:.4f} against "
                f"{accuracy.image_auroc_fp32:.4f} of fp32; it may lose {MAX_AUROC_LOSS:g}"
            )
    if accuracy.false_reject_rate is not None and accuracy.false_reject_rate_fp32 is not None:
        change = abs(accuracy.false_reject_rate - accuracy.false_reject_rate_fp32)
        if change > MAX_REJECT_CHANGE + ROUNDING:
            raise VariantError(
                f"{name}: rejects {accuracy.false_reject_rate:.2%} of the good test photos, fp32 "
                f"{accuracy.false_reject_rate_fp32:.2%}; they may differ by {MAX_REJECT_CHANGE:.0%}"
            )


def variant_files(name: str) -> dict[str, str]:
    """Files of a variant below the model directory, by engine."""
    suffix = "" if name == "fp32" else f"-{name}"
    return {"openvino": f"openvino{suffix}/model.xml", "onnxruntime": f"model{suffix}.onnx"}


def _build(
    model: Model,
    name: str,
    trunk: onnx.ModelProto,
    fitted: Fit,
    expected: list[Outputs],
    engines: tuple[str, ...],
) -> Built:
    """Write and prove one variant; ``expected`` for the samples and the golden photo."""
    *expected, golden = expected
    precision = PRECISIONS[name]
    log.info("variant %s: folding into one ONNX graph and OpenVINO's IR", name)
    metadata = graph_metadata(model.graph, fitted.options.view, fitted.calibration, precision)
    head = trace_head(fitted.head(_lift_to(model)), fitted.shapes, model.graph)
    files = {engine: file for engine, file in variant_files(name).items() if engine in engines}
    joined = join(trunk, head, onnx_props(metadata))
    save_ir(joined, metadata, model.root / files["openvino"])
    if "onnxruntime" in files:
        save_onnx(for_onnxruntime(joined), model.root / files["onnxruntime"])
    settings = Settings(default_threads(), precision)
    loaded = {
        engine: load_engine(engine, model.root / file, model.graph, settings)
        for engine, file in files.items()
    }
    parity = prove(
        expected, loaded, model.graph, fitted.calibration, model.samples, model.source, precision
    )
    _report(name, parity)
    variant = Variant(precision, files, fitted.calibration, parity, None, {})
    return Built(variant, fitted, loaded, golden)


def _report(name: str, parity: Parity) -> None:
    log.info(
        "variant %s: parity on %d %s: raw scores within %.1e, maps within %.1e, every label the "
        "same",
        name,
        parity.images,
        parity.source,
        max(parity.score_error.values()),
        max(parity.map_error.values()),
    )


def _lift_to(model: Model) -> tuple[int, int] | None:
    return model.fitted.size if model.graph.map_size == "input" else None


def _quantisation_inputs(model: Model) -> Iterator[np.ndarray]:
    photos = model.fitted.photos
    chosen = np.unique(np.linspace(0, len(photos) - 1, min(SAMPLES, len(photos))).astype(int))
    reader = _reader(model, [photos[i] for i in chosen])
    shown = islice(reader, 0, None, max(1, reader.expected // SAMPLES))  # of tiles not all
    return (prepare(photo.image, model.graph) for photo in shown)


def _reader(model: Model, photos: list[Path]) -> PhotoReader:
    options = model.fitted.options
    return PhotoReader(photos, *model.fitted.size, options.view, options.max_pixels)


def rank_correlation(one: Fit, other: Fit) -> float:
    """Spearman's, of the held-out scores of the photos that both have one of; 0 where undefined.

    Where photos are sketched as they come, either fit may have kept a sample of its own.
    """
    from scipy.stats import spearmanr  # here, since loading it takes half a second

    shared, a, b = np.intersect1d(one.photo_of_score, other.photo_of_score, return_indices=True)
    known = shared >= 0  # the others are photos of earlier models
    if known.sum() < 2:
        return 0.0
    found = spearmanr(one.held_out_scores[a[known]], other.held_out_scores[b[known]])
    return float(np.nan_to_num(found.statistic))


def _accuracy(model: Model, fp32: Built, built: Built) -> Accuracy:
    sides = {"fp32": fp32, "variant": built}
    scores: dict[str, list[np.float32]] = {key: [] for key in sides}
    labelled = []
    options = model.fitted.options
    for photo in _labelled(model.folder):
        try:
            image = read_image(photo.path, options.max_pixels)
            plan = options.view.plan(image.shape[0], image.shape[1])
        except ImageError:  # a broken test photo tells nothing
            continue
        labelled.append(photo.is_defective)
        batches = [prepare(piece, model.graph) for piece in plan.inputs(image, *model.fitted.size)]
        for key, one in sides.items():
            engine = one.engines["openvino"]
            scores[key].append(max(engine.run(batch).pred_score[0] for batch in batches))
    labels = np.array(labelled, bool)
    figures = {}
    for key, one in sides.items():
        threshold = one.fitted.calibration.image
        raw = threshold.raw(np.array(scores[key], np.float32))
        over = raw > threshold.value
        figures[key] = (
            auroc(raw, labels) if labels.any() and not labels.all() else None,
            float(over[~labels].mean()) if not labels.all() else None,
            float(over[labels].mean()) if labels.any() else None,
        )
    ours, theirs = figures["variant"], figures["fp32"]
    return Accuracy(
        rank_correlation=rank_correlation(fp32.fitted, built.fitted),
        images=len(labels),
        image_auroc=ours[0],
        image_auroc_fp32=theirs[0],
        false_reject_rate=ours[1],
        false_reject_rate_fp32=theirs[1],
        detection_rate=ours[2],
        detection_rate_fp32=theirs[2],
    )


def _labelled(folder: Path | None) -> list[LabelledImage]:
    try:
        return labelled_images(folder) if folder is not None else []
    except DataError:
        return []


def _time_ratios(model: Model, fp32: Built, built: Built) -> dict[str, float]:
    batch = prepare(model.samples[0].image, model.graph)
    ratios = {}
    for name, engine in built.engines.items():
        pair = measure_pair(
            lambda engine=engine: engine.run(batch),  # type: ignore[misc]
            lambda name=name: fp32.engines[name].run(batch),  # type: ignore[misc]
            TIMING,
        )
        ratios[name] = pair.ratio["median"]
    return ratios
