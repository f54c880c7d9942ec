"""The metrics that Prometheus collects."""

import dataclasses
import socket
import urllib.request

import pytest

from fre_runtime.drift import DriftState
from fre_runtime.errors import OutputError
from fre_runtime.live.events import Counters
from fre_runtime.live.sinks.metrics import Metrics
from fre_runtime.live.sinks.outlet import Outlet
from tests.live.conftest import Script, score_by_brightness
from tests.live.sink_events import drifting, event, stale, wait_for


def scrape(metrics):
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics") as response:
        return response.read().decode()


def test_metrics_in_base_units(stop):
    pytest.importorskip("prometheus_client")
    from fre_runtime.live.line import Line

    metrics = Metrics(0)
    try:
        out = Outlet(metrics, "metrics")
        line = Line("top", score_by_brightness, Script([]), [])
        line.counters = Counters(captured=9, scored=5, dropped=3, failed=1, anomalous=2)
        metrics.watch([line], [out])
        out.emit(event(0))
        out.emit(drifting(1, line="side"))
        out.emit(dataclasses.replace(stale(), drift=DriftState(False, None, 0.1, 0.5, 9)))
        wait_for(lambda: out.delivered == 3)
        told = scrape(metrics)
        for expected in (
            'fre_frames_captured_total{line="top"} 9.0',
            'fre_frames_scored_total{line="top"} 5.0',
            'fre_frames_anomalous_total{line="top"} 2.0',
            'fre_frames_dropped_total{line="top"} 3.0',
            'fre_frames_failed_total{line="top"} 1.0',
            'fre_reconnects_total{line="top"} 0.0',
            'fre_events_lost_total{sink="metrics"} 0.0',
            'fre_latency_seconds_sum{line="top"} 0.0125',
            'fre_score_count{line="top"} 1.0',
            'fre_state{line="top",state="anomalous"} 0.0',
            'fre_state{line="top",state="stale"} 1.0',
            'fre_drift{line="top"} 0.0',
            'fre_drift{line="side"} 1.0',
            'fre_last_score_timestamp_seconds{line="top"} 1.7000000005e+09',
        ):
            assert expected in told, expected
    finally:
        out.close()
    with pytest.raises(OSError, match="refused"):
        scrape(metrics)


@pytest.mark.parametrize(("port", "host"), [(70000, "127.0.0.1"), (0, "a..b")])
def test_metrics_at_no_address(port, host):
    pytest.importorskip("prometheus_client")
    with pytest.raises(OutputError, match=f"{host}:{port}: metrics cannot be served there"):
        Metrics(port, host)


def test_metrics_on_a_port_in_use():
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=f"127.0.0.1:{port}: metrics cannot be served"):
            Metrics(port)
