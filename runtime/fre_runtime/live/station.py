"""What runs where: lines and sinks, as a command line or a file describes them."""

import json
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

from fre_runtime.errors import DataError, UsageError
from fre_runtime.image import MAX_PIXELS
from fre_runtime.live.addresses import is_stream
from fre_runtime.live.options import LineOptions
from fre_runtime.typed import Builder


@dataclass(frozen=True)
class LineConfig:
    """One source with one model."""

    model: str
    source: str
    name: str = ""
    """Default: the source, without password."""
    variant: str = "fp32"
    watch: bool = False
    """The source is a folder that fills up."""
    only_new: bool = False
    """Leave out what is in the folder already."""
    limits: LineOptions = field(default_factory=LineOptions)


@dataclass(frozen=True)
class JsonConfig:
    """JSON lines, appended to a file; ``-`` for stdout."""

    file: str
    states: list[str] | None = None


@dataclass(frozen=True)
class ImagesConfig:
    """Pictures, by default of anomalies."""

    folder: str
    quota_mib: int = 1024
    states: list[str] | None = None


@dataclass(frozen=True)
class VideoConfig:
    """Video of every picture with its heat map."""

    folder: str
    quota_mib: int = 4096


@dataclass(frozen=True)
class WebhookConfig:
    """HTTP POST of each event, by default of all but good ones."""

    address: str
    headers: dict[str, str] = field(default_factory=dict)
    states: list[str] | None = None


@dataclass(frozen=True)
class MqttConfig:
    """MQTT message for each event."""

    address: str
    states: list[str] | None = None


@dataclass(frozen=True)
class MetricsConfig:
    """Prometheus metrics."""

    port: int
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class SinksConfig:
    """Where events go; each kind at most once."""

    json: JsonConfig | None = None
    images: ImagesConfig | None = None
    video: VideoConfig | None = None
    webhook: WebhookConfig | None = None
    mqtt: MqttConfig | None = None
    metrics: MetricsConfig | None = None


@dataclass(frozen=True)
class Station:
    """Everything that runs in one process."""

    lines: list[LineConfig]
    sinks: SinksConfig = field(default_factory=SinksConfig)
    engine: str = "auto"
    threads: int | None = None
    """CPU threads for all models together."""
    max_pixels: int = MAX_PIXELS
    """Larger pictures are invalid."""


def read_station(path: Path) -> Station:
    """Read a station from a ``.toml`` or ``.json`` file; its paths are relative to the file.

    Raises
    ------
    DataError
        When the file cannot be read.
    UsageError
        When it is of another kind, or a field is missing, unknown or mistyped.
    """
    parsers = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in parsers:
        raise UsageError(f"{path}: must end in {' or '.join(parsers)}")
    try:
        data = parsers[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: is not valid {path.suffix[1:].upper()} ({error})") from error
    station = Builder(UsageError, complete=False).build(Station, data, str(path))
    if not station.lines:
        raise UsageError(f"{path}: has no line; give at least one [[lines]] with model and source")
    return _relative_to(path.parent, station)


def _relative_to(base: Path, station: Station) -> Station:
    def at(name: str) -> str:
        return name if name == "-" else str(base / name)

    sinks = station.sinks
    return replace(
        station,
        lines=[
            replace(
                line,
                model=at(line.model),
                source=line.source if is_stream(line.source) else at(line.source),
                name=line.name or ("" if is_stream(line.source) else line.source),
            )
            for line in station.lines
        ],
        sinks=replace(
            sinks,
            json=sinks.json and replace(sinks.json, file=at(sinks.json.file)),
            images=sinks.images and replace(sinks.images, folder=at(sinks.images.folder)),
            video=sinks.video and replace(sinks.video, folder=at(sinks.video.folder)),
        ),
    )
