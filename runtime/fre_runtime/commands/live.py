"""The live side of fre-run: cameras, streams and folders that fill up."""

import argparse
import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from fre_runtime.commands.common import positive_float, positive_int
from fre_runtime.errors import CaptureError, UsageError
from fre_runtime.image import MAX_PIXELS
from fre_runtime.live.addresses import is_stream
from fre_runtime.live.station import (
    ImagesConfig,
    JsonConfig,
    LineConfig,
    MetricsConfig,
    MqttConfig,
    SinksConfig,
    Station,
    VideoConfig,
    WebhookConfig,
    read_station,
)

SINKS = ("video", "webhook", "mqtt", "metrics", "quota_mib")
"""Arguments that say where live results go, besides --json and --save."""

IN_CONFIG: dict[str, Any] = {
    **dict.fromkeys(("model", "json", "save", "threads", *SINKS)),
    "sources": [],
    "engine": "auto",
    "variant": "fp32",
    "max_pixels": MAX_PIXELS,
    "live": False,
    "watch": False,
    "only_new": False,
}
"""Arguments that a file of ``--config`` stands for, and what they are where nobody gave them."""


def add_live_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what live sources take."""
    live = parser.add_argument_group(
        "live sources",
        "camera:0, rtsp://..., http(s)://...: always live. Runs until Ctrl-C, which ends with the "
        "counts and exit code 0.",
    )
    live.add_argument(
        "--live", action="store_true", help="play a video file as if it were a camera"
    )
    live.add_argument("--watch", action="store_true", help="score a folder's photos as they come")
    live.add_argument("--only-new", action="store_true", help="not those that are there already")
    live.add_argument(
        "--config", type=Path, metavar="FILE", help="several lines and sinks, as .toml or .json"
    )
    live.add_argument("--duration", type=positive_float, metavar="S", help="end after S seconds")
    sinks = parser.add_argument_group("where live results go, besides --json and --save")
    sinks.add_argument("--video", metavar="DIR", help="video of every picture with heat map")
    sinks.add_argument(
        "--quota-mib",
        type=positive_int,
        metavar="N",
        help="most that --save and --video may take each; the oldest files go "
        f"(default {ImagesConfig('').quota_mib} and {VideoConfig('').quota_mib})",
    )
    sinks.add_argument("--webhook", metavar="URL", help="POST each event that is not good")
    sinks.add_argument(
        "--mqtt", metavar="URL", help="publish each event: mqtt[s]://[USER:PASSWORD@]HOST/TOPIC"
    )
    sinks.add_argument("--metrics", metavar="[HOST:]PORT", help="serve Prometheus metrics")
    sinks.add_argument("--view", action="store_true", help="show the pictures in a window")


def is_live(args: argparse.Namespace) -> bool:
    """Whether the command line asks for live sources.

    Raises
    ------
    UsageError
        When it mixes them with files, or gives files what only live sources take.
    """
    streams = [source for source in args.sources if is_stream(source)]
    if args.config or args.live or args.watch or streams:
        if streams and len(streams) < len(args.sources) and not (args.live or args.watch):
            other = next(source for source in args.sources if not is_stream(source))
            raise UsageError(f"{other}: is no live source like {streams[0]}; run them apart")
        return True
    if given := [name for name in (*SINKS, "only_new", "duration", "view") if getattr(args, name)]:
        option = f"--{given[0].replace('_', '-')}"
        raise UsageError(f"{option} is for live sources; see --live and --watch")
    return False


def run_live(args: argparse.Namespace) -> int:
    """Run until the sources end, the time is over, or a signal comes."""
    # Imported here so that --help and misuse answer at once.
    from fre_runtime.live.console import Console, summary
    from fre_runtime.live.opening import open_station
    from fre_runtime.live.sinks.outlet import Outlet
    from fre_runtime.live.supervisor import run_lines
    from fre_runtime.live.window import open_window

    station = _station(args)
    stop = threading.Event()
    json_on_stdout = station.sinks.json is not None and station.sinks.json.file == "-"
    console = Console(stop, quiet=args.quiet, stdout=not json_on_stdout)
    window = open_window("fre-run") if args.view else None
    further = [Outlet(console, "console")]
    if window is not None:
        further.append(Outlet(window, "window", pictures=True))
    with ended_by_signals(stop) as signals:
        with open_station(station, stop, further) as opened:
            console.watch(opened.lines)
            with _timer(args.duration, stop):
                run_lines(
                    opened.lines, stop, functools.partial(window.update, stop) if window else None
                )
        told = "\n".join(summary(opened.lines, opened.outlets)) + "\n"
        (sys.stderr if json_on_stdout else sys.stdout).write(told)
    if not signals and not any(line.counters.scored for line in opened.lines):
        raise CaptureError("not one picture was scored")
    return 0


def _station(args: argparse.Namespace) -> Station:
    if args.config:
        if given := [name for name, default in IN_CONFIG.items() if getattr(args, name) != default]:
            name = given[0].replace("_", "-")
            option = name.upper() if name in ("model", "sources") else f"--{name}"
            raise UsageError(f"{option} does not go with --config; say it in {args.config}")
        return read_station(args.config)
    quota = {} if args.quota_mib is None else {"quota_mib": args.quota_mib}
    return Station(
        lines=[
            LineConfig(
                str(args.model),
                source,
                variant=args.variant,
                watch=args.watch and not is_stream(source),
                only_new=args.only_new,
            )
            for source in args.sources
        ],
        sinks=SinksConfig(
            json=JsonConfig(args.json) if args.json else None,
            images=ImagesConfig(str(args.save), **quota) if args.save else None,
            video=VideoConfig(args.video, **quota) if args.video else None,
            webhook=WebhookConfig(args.webhook) if args.webhook else None,
            mqtt=MqttConfig(args.mqtt) if args.mqtt else None,
            metrics=_metrics(args.metrics) if args.metrics else None,
        ),
        engine=args.engine,
        threads=args.threads,
        max_pixels=args.max_pixels,
    )


def _metrics(text: str) -> MetricsConfig:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise UsageError(f"--metrics {text}: expected PORT or HOST:PORT")
    return MetricsConfig(int(port), host) if host else MetricsConfig(int(port))


@contextlib.contextmanager
def ended_by_signals(stop: threading.Event) -> Iterator[list[int]]:
    """Let Ctrl-C and SIGTERM set ``stop``, a second one break off; yields those that came."""
    came: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _timer(seconds: float | None, stop: threading.Event) -> Iterator[None]:
    timer = threading.Timer(seconds or 0, stop.set)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
