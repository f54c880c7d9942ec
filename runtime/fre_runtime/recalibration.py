"""New thresholds for a model, from good photos of the camera that it runs at: no refit, no torch.

The graph is the same but for its two thresholds, so it needs no new proof of parity: the raw scores
are those that were proved. What the photos tell is measured by running the model.
"""

import datetime
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fre_runtime.calibration import Calibration, Threshold
from fre_runtime.card import Card, Variant
from fre_runtime.conformal import calibrate
from fre_runtime.engines.base import Engine, Settings
from fre_runtime.engines.loading import (
    MAP_TOLERANCE,
    installed_engines,
    load_engine,
    open_engine,
    resolve_engine,
)
from fre_runtime.errors import DataError, EngineError, UsageError
from fre_runtime.files import good_images
from fre_runtime.graph_files import rewrite, threshold_constants
from fre_runtime.groups import Groups, GroupTable, thumbnail, thumbnail_groups
from fre_runtime.image import MAX_PIXELS, read_image
from fre_runtime.model_dir import (
    CARD,
    GOLDEN_IMAGE,
    MANIFEST,
    REPORT,
    ModelDir,
    check_writable,
    golden_outputs,
    new_directory,
    open_model_dir,
    write_manifest,
)
from fre_runtime.ordered import ordered_map
from fre_runtime.photos import Photo, PhotoReader, on_photos
from fre_runtime.preprocess import prepare
from fre_runtime.progress import track
from fre_runtime.regions import Polygon
from fre_runtime.threads import default_threads

FEWEST = 2
"""Photos that can say anything at all."""
THUMBNAIL, TILE_THUMBNAIL = 32, 8
"""Sides of the thumbnails by which near-copies are found."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationOptions:
    """How new thresholds are to be found."""

    fpr: float | None = None
    """Target false-reject rate; None = that of the model."""
    groups: str = "auto"
    """``auto``: by thumbnails; ``none``; or the path of a CSV file with the columns file,group."""
    regions: list[Polygon] | None = None
    """Other regions to look at, where the camera was moved; None = those of the model."""
    engine: str = "auto"
    threads: int | None = None
    max_pixels: int = MAX_PIXELS
    overwrite: bool = False
    """Replace an existing model directory."""
    quiet: bool = False

    def check(self) -> None:
        """Raise `UsageError` for a value out of range."""
        if self.fpr is not None and not 1e-6 <= self.fpr < 1:
            raise UsageError(f"fpr must lie between 0.000001 and 1, got {self.fpr}")


@dataclass(frozen=True)
class Recalibration:
    """A model directory with new thresholds, and what was found on the way."""

    model: ModelDir
    rejected_before: dict[str, float]
    """Share of the photos that the old thresholds reject, by variant."""
    left_out: dict[str, str]
    """Variants that cannot run here and so could not be calibrated, with the reason."""
    skipped: dict[Path, str]
    """Photos that could not be used, with the reason."""


def recalibrate(
    model: str | Path | ModelDir,
    images: Path,
    out: Path,
    options: CalibrationOptions | None = None,
) -> Recalibration:
    """Write ``model`` to ``out`` with thresholds from good photos that it was not fitted on.

    Raises
    ------
    DataError
        When the photos are too few for the false-reject rate; it says which one they support.
    ArtifactError
        When the model was written by an earlier version, whose thresholds cannot be changed.
    OutputError
        When ``out`` exists or cannot be written.
    EngineError
        When no variant runs here, or the new files do not give what they must.
    """
    options = options or CalibrationOptions()
    options.check()
    directory = model if isinstance(model, ModelDir) else open_model_dir(model)
    card = directory.card
    check_writable(out, overwrite=options.overwrite)
    table = None
    if options.groups not in ("auto", "none"):
        table = GroupTable.read(Path(options.groups))  # a bad file is found before the work
    view = card.view if options.regions is None else card.view.with_regions(options.regions)
    view.check()
    paths = good_images(images)
    view = on_photos(view, paths, options.max_pixels)
    engines, left_out = _open(directory, options)
    graph = card.graph
    reader = PhotoReader(paths, graph.height, graph.width, view, options.max_pixels)
    seen = _measure(directory, engines, reader, options)
    if options.groups == "auto":
        groups = thumbnail_groups(seen.thumbnails)
    else:
        groups = table.assign(seen.photos) if table else np.arange(len(seen.photos))
    calibrations = {
        name: _calibrated(directory.variant(name).calibration, seen, name, groups, images, options)
        for name in engines
    }
    before = {
        name: float((seen.scores[name] > directory.variant(name).calibration.image.value).mean())
        for name in engines
    }
    new = replace(
        card,
        name=out.absolute().name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        view=view,
        variants={
            name: _variant(card.variants[name], calibration)
            for name, calibration in calibrations.items()
        },
    )
    with new_directory(out, overwrite=options.overwrite) as temporary:
        _write(temporary, directory, new)
        written = open_model_dir(temporary)
        for name, variant in written.card.variants.items():
            for engine in set(variant.files) & set(installed_engines()):
                open_engine(written, engine, name)  # runs the golden image
    return Recalibration(open_model_dir(out), before, left_out, reader.skipped)


def _open(
    directory: ModelDir, options: CalibrationOptions
) -> tuple[dict[str, Engine], dict[str, str]]:
    """An engine for each variant that runs here, and why the others do not."""
    engines: dict[str, Engine] = {}
    left_out: dict[str, str] = {}
    preferred = resolve_engine(options.engine)
    for name, variant in directory.card.variants.items():
        usable = [engine for engine in variant.files if engine in installed_engines()]
        if preferred in usable:
            usable = [preferred]
        elif options.engine != "auto":
            usable = []
        if not usable:
            left_out[name] = f"no engine that is installed runs it ({', '.join(variant.files)})"
            continue
        try:
            engines[name] = open_engine(
                directory, usable[0], name, options.threads, throughput=True
            )
        except EngineError as error:
            left_out[name] = str(error)
    if not engines:
        raise EngineError(f"{directory.path}: no variant runs here; {'; '.join(left_out.values())}")
    return engines, left_out


class _Seen(NamedTuple):
    """What the model says of the photos."""

    photos: list[Path]
    thumbnails: list[NDArray[np.float32]]
    scores: dict[str, Floats]
    """Raw score of each photo, by variant; of tiles the largest."""
    maxima: dict[str, Floats]
    """Largest raw value of each photo's map, by variant."""


class _Row(NamedTuple):
    path: Path
    thumbnail: NDArray[np.float32]
    scores: list[float]
    maxima: list[float]


def _measure(
    directory: ModelDir,
    engines: dict[str, Engine],
    reader: PhotoReader,
    options: CalibrationOptions,
) -> _Seen:
    thresholds = {name: directory.variant(name).calibration for name in engines}
    side = TILE_THUMBNAIL if reader.view.tile else THUMBNAIL

    def run(photo: Photo) -> _Row:
        batch = prepare(photo.image, directory.card.graph)
        scores, maxima = [], []
        for name, engine in engines.items():
            outputs = engine.run(batch)
            scores.append(float(thresholds[name].image.raw(outputs.pred_score[0])))
            maxima.append(float(thresholds[name].pixel.raw(outputs.anomaly_map.max())))
        return _Row(photo.path, thumbnail(photo.image, side), scores, maxima)

    workers = next(iter(engines.values())).info.parallel
    rows: Iterator[_Row] = ordered_map(run, reader, workers, 2 * workers)
    if not options.quiet:
        rows = track(rows, reader.expected, "scoring")
    photos, thumbnails = [], []
    scores: list[Floats] = []
    maxima: list[Floats] = []
    for path, tiles in groupby(rows, key=lambda row: row.path):
        each = list(tiles)
        score = np.max([row.scores for row in each], axis=0)
        if not np.isfinite(score).all():
            reader.skipped[path] = "its score is not a finite number"
            continue
        photos.append(path)
        thumbnails.append(np.concatenate([row.thumbnail for row in each]))
        scores.append(score)
        maxima.append(np.max([row.maxima for row in each], axis=0))
    if len(photos) < FEWEST:
        reasons = [f"{path}: {reason}" for path, reason in reader.skipped.items()]
        raise DataError(
            f"{len(photos)} usable photos among {len(reader.paths)} files are too few to calibrate "
            "on; a false-reject rate of F takes 1/F - 1 photos of different good parts"
            + (f"; the first problem: {reasons[0]}" if reasons else "")
        )
    return _Seen(
        photos,
        thumbnails,
        dict(zip(engines, np.array(scores).T, strict=True)),
        dict(zip(engines, np.array(maxima).T, strict=True)),
    )


def _calibrated(
    old: Calibration,
    seen: _Seen,
    name: str,
    groups: Groups,
    images: Path,
    options: CalibrationOptions,
) -> Calibration:
    fpr = old.fpr if options.fpr is None else options.fpr
    source = f"photos of {images.resolve().name}"
    new = calibrate(seen.scores[name], seen.maxima[name], groups, fpr, 0, source)
    if new.fpr_supported > fpr:
        more = int(np.ceil(1 / fpr - 1e-9)) - 1
        raise DataError(
            f"{images}: {new.photos} photos of {new.scenes} scenes support a false-reject rate of "
            f"{new.fpr_supported:.3g} at best, not {fpr:.3g}; that takes photos of {more} "
            f"different good parts. Add some, or ask for --fpr {_round_up(new.fpr_supported)}"
        )
    for threshold in (new.image, new.pixel):
        if not 0 < threshold.value < np.inf:
            raise DataError(
                f"{images}: the scores of the photos give the threshold {threshold.value:g}: they "
                "show nothing that the model was fitted on. Export a model from them instead"
            )
    return new


def _round_up(rate: float) -> str:
    return f"{np.ceil(rate * 1000) / 1000:g}"


def _variant(old: Variant, calibration: Calibration) -> Variant:
    """The variant with new thresholds; what was measured at the old ones is dropped."""
    accuracy = old.accuracy
    if accuracy is not None:
        accuracy = replace(
            accuracy,
            false_reject_rate=None,
            false_reject_rate_fp32=None,
            detection_rate=None,
            detection_rate_fp32=None,
        )
    return replace(old, calibration=calibration, accuracy=accuracy)


def _write(root: Path, old: ModelDir, card: Card) -> None:
    """Copy what stays, change the thresholds in the rest."""
    dropped = {CARD, MANIFEST, REPORT}  # the report shows the thresholds of the export
    for name, variant in old.card.variants.items():
        dropped.add(golden_outputs(name))
        if name not in card.variants:
            dropped.update(variant.files.values())
            dropped.update(str(Path(f).with_suffix(".bin")) for f in variant.files.values())
    for path in old.path.rglob("*"):
        name = path.relative_to(old.path).as_posix()
        if path.is_file() and name not in dropped:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, root / name)
    (root / CARD).write_text(card.to_json(), encoding="utf-8", errors="backslashreplace")
    for name, variant in card.variants.items():
        calibration = variant.calibration
        metadata = {**calibration.metadata(), **card.view.metadata()}
        for file in variant.files.values():
            rewrite(root / file, threshold_constants(calibration), metadata)
        _write_golden(root, old, card, name)
    write_manifest(root)


def _write_golden(root: Path, old: ModelDir, card: Card, name: str) -> None:
    """Expected outputs of the golden image: what was proved at export, on the new scales."""
    before, after = old.variant(name).calibration, card.variants[name].calibration
    with np.load(old.path / golden_outputs(name), allow_pickle=False) as golden:
        score = _moved(golden["pred_score"], before.image, after.image)
        anomaly_map = _moved(golden["anomaly_map"], before.pixel, after.pixel)
    if card.graph.map_size == "input":
        anomaly_map = _lifted_map(root, card, name, anomaly_map)
    np.savez_compressed(
        root / golden_outputs(name),
        pred_score=score,
        pred_label=~(score <= 0.5),
        anomaly_map=anomaly_map,
        pred_mask=~(anomaly_map <= 0.5),
    )


def _lifted_map(
    root: Path, card: Card, name: str, expected: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The golden map as the new graph gives it, where it lifts the map by itself.

    Lifting comes after calibration there, so only the corners, which are cells of the grid, can be
    told from the old map; they prove the file.
    """
    variant = card.variants[name]
    engine = next(engine for engine in installed_engines() if engine in variant.files)
    settings = Settings(default_threads(), variant.precision)
    loaded = load_engine(engine, root / variant.files[engine], card.graph, settings)
    found = loaded.run(prepare(read_image(root / GOLDEN_IMAGE), card.graph)).anomaly_map
    corners = np.ix_([0], [0], [0, -1], [0, -1])
    off = float(np.abs(found[corners] - expected[corners]).max())
    if not off <= MAP_TOLERANCE[variant.precision]:
        raise EngineError(
            f"{engine} gives the golden image a map that is off by {off:.2g} at a corner with the "
            "new thresholds; nothing is written"
        )
    return found


def _moved(
    calibrated: NDArray[np.float32], before: Threshold, after: Threshold
) -> NDArray[np.float32]:
    """The same raw values under another threshold."""
    return after.calibrated(before.raw(calibrated)).astype(np.float32)
