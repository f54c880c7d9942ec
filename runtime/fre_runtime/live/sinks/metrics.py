"""Prometheus metrics, served over HTTP, in base units."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from fre_runtime.errors import MissingDependencyError, OutputError
from fre_runtime.live.events import Event
from fre_runtime.live.line import Line
from fre_runtime.live.sinks.outlet import Outlet

if TYPE_CHECKING:
    from prometheus_client.core import Metric

DEFAULT_HOST = "127.0.0.1"
STATES = ("good", "anomalous", "invalid", "stale")
SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
COUNTERS: dict[str, tuple[str, Callable[[Line], int]]] = {
    "fre_frames_captured": ("Pictures that came.", lambda line: line.counters.captured),
    "fre_frames_scored": ("Pictures with a score.", lambda line: line.counters.scored),
    "fre_frames_anomalous": ("Anomalous ones of them.", lambda line: line.counters.anomalous),
    "fre_frames_dropped": ("Gave way to newer ones.", lambda line: line.counters.dropped),
    "fre_frames_failed": ("Pictures without a score.", lambda line: line.counters.failed),
    "fre_reconnects": ("How often the source was opened again.", lambda line: line.reconnects),
}
"""What is read from the lines at each scrape; ``_total`` is added to the names."""


class Metrics:
    """Serves ``http://HOST:PORT/metrics``; counters are read from the lines themselves.

    Raises
    ------
    MissingDependencyError
        When prometheus-client is not installed.
    OutputError
        When the port is in use, not allowed or none, or the host has no address.
    """

    def __init__(self, port: int, host: str = DEFAULT_HOST) -> None:
        try:
            import prometheus_client as prometheus
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                "prometheus-client is not installed; run: pip install 'fre-edge[live]'"
            ) from error
        registry = prometheus.CollectorRegistry()
        self._lines: Sequence[Line] = ()
        self._outlets: Sequence[Outlet] = ()
        registry.register(self)
        self._score = prometheus.Histogram(
            "fre_score", "Calibrated score; 0.5 is the threshold.", ["line"],
            buckets=SCORES, registry=registry,
        )  # fmt: skip
        self._latency = prometheus.Histogram(
            "fre_latency_seconds", "From capture to result.", ["line"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._state = prometheus.Gauge(
            "fre_state", "1 for the state that the line is in.", ["line", "state"],
            registry=registry,
        )  # fmt: skip
        self._drift = prometheus.Gauge(
            "fre_drift", "1 since the scores were found to drift.", ["line"], registry=registry
        )
        self._last = prometheus.Gauge(
            "fre_last_score_timestamp_seconds", "When the last scored picture was captured.",
            ["line"], registry=registry,
        )  # fmt: skip
        try:
            self._server, self._thread = prometheus.start_http_server(port, host, registry)
        except (OSError, OverflowError, UnicodeError) as error:
            raise OutputError(
                f"{host}:{port}: metrics cannot be served there "
                f"({getattr(error, 'strerror', None) or error}); "
                "choose another port"
            ) from error
        self.port = self._server.server_port

    def watch(self, lines: Sequence[Line], outlets: Sequence[Outlet]) -> None:
        """Serve the counters of these, too."""
        self._lines, self._outlets = lines, outlets

    def emit(self, event: Event) -> None:
        """Take one event into account."""
        for state in STATES:
            self._state.labels(event.line, state).set(int(event.state == state))
        if event.score is not None:
            self._score.labels(event.line).observe(event.score)
            self._last.labels(event.line).set(event.time)
        if event.drift is not None:
            self._drift.labels(event.line).set(int(event.drift.drifting))
        if event.latency_ms is not None:
            self._latency.labels(event.line).observe(event.latency_ms / 1e3)

    def collect(self) -> Iterator["Metric"]:
        """Called by prometheus-client for each scrape."""
        from prometheus_client.core import CounterMetricFamily

        for name, (text, read) in COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=["line"])
            for line in self._lines:
                family.add_metric([line.name], read(line))
            yield family
        family = CounterMetricFamily("fre_events_lost", "Events that a sink lost.", labels=["sink"])
        for outlet in self._outlets:
            family.add_metric([outlet.name], outlet.lost)
        yield family

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1)
