"""One measurement as a row: for the JSON, and for people."""

from typing import Any

from fre_runtime.environment import resident_mib
from fre_runtime.harness.benchmark_app import benchmark_app
from fre_runtime.harness.noise import exceeded
from fre_runtime.harness.sides import STAGES, Job
from fre_runtime.latency import Budget, Measurement

MARK = "*"
"""Stands behind the number of frames where it is smaller than asked for."""

HEADER = (
    f"{'engine':<13}{'variant':<9}{'scope':<7}{'threads':>7}{'frames':>8}{'fps':>8}"
    f"{'median':>9}{'(95% interval)':>16}{'p90':>8}{'p95':>8}{'p99':>8}"
    + "".join(f"{'post' if stage == 'postprocess' else stage:>8}" for stage in STAGES)
    + "  (ms)"
)


def to_row(job: Job, measured: Measurement, budget: Budget) -> dict[str, Any]:
    """All figures of one measurement, JSON-ready."""
    info, side = job.info, job.side
    found = measured.noise()
    # Frames that wait for each other differ by nature; only their spread over time tells noise.
    ignore = ("spread",) if side.throughput else ()
    return {
        "engine": info.engine,
        "engine_version": info.version,
        "variant": side.variant,
        "precision": info.precision,
        "scope": job.scope,
        "scenario": "throughput" if side.throughput else "latency",
        "threads": info.threads,
        "parallel": info.parallel,
        "fps": measured.fps,
        "latency_ms": measured.latency(),
        "latency_interval_ms": measured.intervals(),
        "stages_ms": measured.stage_medians(),
        "frames": len(measured.milliseconds),
        "samples": measured.samples(budget),
        "seconds": measured.seconds,
        "rss_mib": resident_mib(),
        "noise": found and found | {"exceeded": exceeded(found, ignore)},
        "benchmark_app": benchmark_app(
            side.model.card.name,
            info,
            measured,
            budget.seconds,
            graph_only=job.scope == "graph",
        ),
    }


def to_line(row: dict[str, Any]) -> str:
    """The row under `HEADER`."""
    latency, stages = row["latency_ms"], row["stages_ms"] or {}
    low, high = (
        "?" if end is None else f"{end:.2f}" for end in row["latency_interval_ms"]["median"]
    )
    frames = f"{row['frames']}{'' if row['samples']['reached'] else MARK}"
    line = (
        f"{row['engine']:<13}{row['variant']:<9}{row['scope']:<7}"
        f"{row['threads']:>7}{frames:>8}{row['fps']:>8.1f}{latency['median']:>9.2f}"
        f"{f'({low}-{high})':>16}{latency['p90']:>8.2f}{latency['p95']:>8.2f}{latency['p99']:>8.2f}"
    )
    line += "".join(f"{stages[s]:>8.2f}" if s in stages else f"{'-':>8}" for s in STAGES)
    if "ratio" in row:
        ratio = row["ratio"]
        line += f"  time ratio {ratio['median']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})"
    return line


def describe_machine(env: dict[str, Any], scenario: str) -> str:
    """One line on what is measured, and on what."""
    quota = "none" if env["cpu_quota"] is None else f"{env['cpu_quota']:g}"
    return (
        f"{scenario} on {env['cpu']}, {env['cpus_available']} CPUs, quota {quota}, "
        f"{' '.join(env['isa'])}; {env['date']}"
    )
