"""From the description of a station to lines that are ready to run."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from fre_runtime.engines.loading import resolve_engine
from fre_runtime.errors import UsageError
from fre_runtime.live.captures import open_capture
from fre_runtime.live.line import Line
from fre_runtime.live.models import ModelPool
from fre_runtime.live.record import slug
from fre_runtime.live.sinks.mqtt import STATUS as MQTT_STATUS
from fre_runtime.live.sinks.opening import open_sinks
from fre_runtime.live.sinks.outlet import Outlet, close_all
from fre_runtime.live.station import Station
from fre_runtime.model_dir import open_model_dir


@dataclass(frozen=True)
class Opened:
    """Lines that are ready to run, and what stands between them and the station's sinks."""

    lines: list[Line]
    outlets: list[Outlet]


@contextlib.contextmanager
def open_station(
    station: Station, stop: threading.Event, further: Sequence[Outlet] = ()
) -> Iterator[Opened]:
    """Check the models, open the sinks, prepare the lines; the sinks are closed at the end.

    A single model is loaded at once, several when their first picture comes. ``further`` get
    the events, too, and are closed with the station's own sinks. Where the reader of stdout goes
    away, ``stop`` is set.

    Raises
    ------
    FreError
        When a model, source or sink cannot be used, or two lines have the same name.
    """
    outlets: list[Outlet] = []
    try:
        yield _open(station, stop, outlets, further)
    finally:
        close_all([*outlets, *further])


def _open(
    station: Station, stop: threading.Event, outlets: list[Outlet], further: Sequence[Outlet]
) -> Opened:
    resolve_engine(station.engine)
    models = {(Path(line.model).resolve(), line.variant) for line in station.lines}
    calibrations = {}
    for path, variant in models:
        model = open_model_dir(path)
        model.variant(variant)
        calibrations[path, variant] = model.card.variants[variant].calibration
    shared = len(station.lines) > len(models)
    pool = ModelPool(len(models), station.engine, station.threads, throughput=shared)
    cv2.setNumThreads(pool.total)  # it knows no CPU quota by itself
    captures = [
        open_capture(
            line.source,
            watch=line.watch,
            only_new=line.only_new,
            threads=max(1, pool.total // len(station.lines)),
            max_pixels=station.max_pixels,
            silence=line.limits.no_frame,
        )
        for line in station.lines
    ]
    _check_folders(station)
    names = [c.name or capture.name for c, capture in zip(station.lines, captures, strict=True)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two lines are called {min(twice)!r}; give each a name of its own")
    _check_slugs(station, names)
    if len(models) == 1:
        pool.detector(*next(iter(models)))
    metrics = open_sinks(station.sinks, stop, outlets)
    lines = [
        Line(
            name,
            pool.scorer(Path(c.model), c.variant),
            capture,
            [*outlets, *further],
            c.limits,
            calibration=calibrations[Path(c.model).resolve(), c.variant],
        )
        for name, c, capture in zip(names, station.lines, captures, strict=True)
    ]
    if metrics is not None:
        metrics.watch(lines, outlets)
    return Opened(lines, outlets)


def _check_slugs(station: Station, names: list[str]) -> None:
    """Raise `UsageError` where two lines would share a topic or the names of their files."""
    if not (station.sinks.mqtt or station.sinks.images or station.sinks.video):
        return
    taken = {MQTT_STATUS: "the broker's clients"} if station.sinks.mqtt else {}
    for name in names:
        other = taken.setdefault(slug(name), f"line {name!r}")
        if other != f"line {name!r}":
            raise UsageError(
                f"line {name!r} and {other} would both be {slug(name)!r} in topics and names of "
                "files; give the lines names that differ in letters or digits (name, in --config)"
            )


def _check_folders(station: Station) -> None:
    """Raise `UsageError` where pictures would be written into, or over, what is scored."""
    sinks = station.sinks
    written = [Path(sink.folder) for sink in (sinks.images, sinks.video) if sink is not None]
    for line in station.lines:
        for folder in written:
            source = Path(line.source)
            if source.is_file() and source.resolve().is_relative_to(folder.resolve()):
                raise UsageError(
                    f"{folder} holds {source}, which is scored: under a quota the oldest files "
                    "there are removed; write elsewhere"
                )
            if line.watch and folder.resolve().is_relative_to(source.resolve()):
                raise UsageError(
                    f"{folder} lies in {line.source}, which is watched: pictures written there "
                    "would be scored again; write elsewhere"
                )
