"""Opening the sinks of a station."""

import threading
from pathlib import Path

from fre_runtime.errors import UsageError
from fre_runtime.live.addresses import shown
from fre_runtime.live.events import Sink, State
from fre_runtime.live.sinks.annotated_video import AnnotatedVideo
from fre_runtime.live.sinks.anomaly_images import AnomalyImages
from fre_runtime.live.sinks.json_lines import JsonLines, StdoutLines
from fre_runtime.live.sinks.metrics import Metrics
from fre_runtime.live.sinks.mqtt import Mqtt
from fre_runtime.live.sinks.outlet import ALARMS, ALL, Outlet
from fre_runtime.live.sinks.webhook import Webhook
from fre_runtime.live.station import SinksConfig


def open_sinks(config: SinksConfig, stop: threading.Event, outlets: list[Outlet]) -> Metrics | None:
    """Add an outlet for each sink to ``outlets``; returns the metrics, which want the lines, too.

    Where one cannot be opened, those before it are in ``outlets`` and remain to be closed.

    Raises
    ------
    FreError
        When one cannot be opened.
    """
    if json := config.json:
        sink: Sink = StdoutLines(stop) if json.file == "-" else JsonLines(Path(json.file))
        outlets.append(Outlet(sink, f"JSON lines in {json.file}", states=_states(json.states, ALL)))
    if images := config.images:
        sink = AnomalyImages(Path(images.folder), _bytes(images.quota_mib))
        states = _states(images.states, frozenset({"anomalous"}))
        outlets.append(Outlet(sink, f"images in {images.folder}", states=states, pictures=True))
    if video := config.video:
        sink = AnnotatedVideo(Path(video.folder), _bytes(video.quota_mib))
        outlets.append(Outlet(sink, f"video in {video.folder}", pictures=True))
    if webhook := config.webhook:
        sink = Webhook(webhook.address, webhook.headers)
        name = f"webhook {shown(webhook.address)}"
        outlets.append(Outlet(sink, name, states=_states(webhook.states, ALARMS), retry=True))
    if mqtt := config.mqtt:
        sink = Mqtt(mqtt.address)
        name = f"MQTT {shown(mqtt.address)}"
        outlets.append(Outlet(sink, name, states=_states(mqtt.states, ALL), retry=True))
    if (at := config.metrics) is None:
        return None
    metrics = Metrics(at.port, at.host)
    outlets.append(Outlet(metrics, f"metrics at http://{at.host}:{metrics.port}/metrics"))
    return metrics


def _states(names: list[str] | None, default: frozenset[State]) -> frozenset[State]:
    if names is None:
        return default
    if not names or not set(names) <= ALL:
        raise UsageError(f"states {names}: choose from {', '.join(sorted(ALL))}")
    return frozenset(state for state in ALL if state in names)


def _bytes(mib: int) -> int:
    if mib < 1:
        raise UsageError(f"quota_mib must be at least 1, got {mib}")
    return mib << 20
