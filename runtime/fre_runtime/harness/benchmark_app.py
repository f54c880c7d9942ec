"""The figures of a row under the names that OpenVINO's benchmark_app gives them.

Same names, nesting and number format as in its ``-report_type no_counters -json_stats`` report, so
that a script which reads ``execution_results`` reads ours too.
"""

from fre_runtime.engines.base import EngineInfo
from fre_runtime.latency import Measurement


def benchmark_app(
    name: str, info: EngineInfo, measured: Measurement, seconds: float, *, graph_only: bool
) -> dict[str, dict[str, str | bool]]:
    """``configuration_setup`` and ``execution_results``; numbers are text, as there.

    Parameters
    ----------
    name
        The model's.
    seconds
        The duration that was asked for.
    graph_only
        Whether the calls held inference alone, as benchmark_app's do by default.
    """
    latency = measured.latency()
    return {
        "configuration_setup": {
            "topology": name,
            "target device": "CPU",
            "API": "sync" if info.parallel == 1 else "async",
            "inference_only": graph_only,
            "precision": info.precision,
            "batch size": "1",
            "number of iterations": "None",  # as there when time decides
            "number of parallel infer requests": str(info.parallel),
            "duration (ms)": str(int(seconds * 1e3)),
        },
        "execution_results": {
            "total execution time (ms)": f"{measured.seconds * 1e3:.2f}",
            "total number of iterations": str(len(measured.milliseconds)),
            "latency (ms)": f"{latency['median']:.2f}",
            "avg latency": f"{latency['mean']:.2f}",
            "min latency": f"{measured.milliseconds.min():.2f}",
            "max latency": f"{latency['max']:.2f}",
            "throughput": f"{measured.fps:.2f}",
        },
    }
