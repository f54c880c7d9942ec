"""fre-serve: a page and KServe endpoints over one model, with or without a live source."""

import argparse
import importlib.util
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2

from fre_runtime.commands.common import (
    add_max_pixels_argument,
    add_model_arguments,
    out,
    positive_int,
)
from fre_runtime.commands.live import ended_by_signals
from fre_runtime.detector import Detector
from fre_runtime.engines.loading import check_threads
from fre_runtime.errors import MissingDependencyError
from fre_runtime.live.captures import open_capture
from fre_runtime.live.console import Console, summary
from fre_runtime.live.line import Line
from fre_runtime.live.sinks.outlet import Outlet, close_all
from fre_runtime.threads import default_threads

TOKEN_VARIABLE = "FRE_SERVE_TOKEN"

MAX_UPLOAD_MIB = 32


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of fre-serve."""
    parser = argparse.ArgumentParser(
        prog="fre-serve",
        description="Show a line on a page, try photos on a model, and answer KServe v2 requests. "
        "Without SOURCE there is only the model.",
    )
    add_model_arguments(parser)
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="camera:0, rtsp://..., http(s)://..., a video file, or a folder that fills up",
    )
    add_max_pixels_argument(parser)
    parser.add_argument("--quiet", action="store_true", help="only the address and the summary")
    parser.add_argument("--port", type=port, default=8080, help="default 8080; 0 takes a free one")
    access = parser.add_argument_group(
        "access",
        "By default only this machine can reach the page. Any other --host, or --allow-host, "
        "needs a token: one is made and printed unless you give your own.",
    )
    access.add_argument("--host", default="127.0.0.1", help="address to serve (default 127.0.0.1)")
    access.add_argument(
        "--token",
        default=os.environ.get(TOKEN_VARIABLE),
        help=f"at least 16 characters; better given in {TOKEN_VARIABLE}, which others cannot list",
    )
    access.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host name by which people or a reverse proxy call this machine; may be repeated",
    )
    access.add_argument(
        "--max-upload",
        type=positive_int,
        default=MAX_UPLOAD_MIB,
        metavar="MIB",
        help=f"largest upload (default {MAX_UPLOAD_MIB} MiB)",
    )
    return parser.parse_args(argv)


def port(text: str) -> int:
    """Parse a TCP port."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must lie in 0..65535, got {value}")
    return value


def run(args: argparse.Namespace) -> int:
    """Run fre-serve."""
    _require_extra()
    from fre_runtime.serve.app import make_app
    from fre_runtime.serve.board import Board
    from fre_runtime.serve.guard import Access
    from fre_runtime.serve.limits import Limits
    from fre_runtime.serve.server import bind, is_loopback, serving
    from fre_runtime.serve.service import Service, Watched

    names = {args.host, *args.allow_host}
    token = args.token
    if not token and not (is_loopback(args.host) and not args.allow_host):
        token = secrets.token_urlsafe(24)
    if token:  # whoever knows it may use any name of this machine
        names |= {socket.gethostname(), f"{socket.gethostname()}.local"}
    stop = threading.Event()
    check_threads(args.threads)
    threads = args.threads or default_threads()
    cv2.setNumThreads(threads)  # it knows no CPU quota by itself
    # What can be refused is refused before the model is loaded.
    capture = None
    if args.source:
        folder = Path(args.source).is_dir()
        capture = open_capture(
            args.source, watch=folder, threads=threads, max_pixels=args.max_pixels
        )
    with bind(args.host, args.port) as bound, ExitStack() as stack:
        number = bound.getsockname()[1]
        access = Access(token or None, frozenset(name.lower() for name in names), number)
        detector = Detector(
            args.model, args.engine, args.variant, args.threads, max_pixels=args.max_pixels
        )
        stack.enter_context(ended_by_signals(stop))
        watched, line, outlet = None, None, None
        if capture is not None:
            board = Board()
            outlet = Outlet(board, "page", pictures=True)
            console = Console(stop, quiet=args.quiet, stdout=False)
            sinks = [outlet, Outlet(console, "console")]
            stack.callback(close_all, sinks)
            calibration = detector.card.variants[args.variant].calibration
            line = Line(capture.name, detector, capture, sinks, calibration=calibration)
            console.watch([line])
            watched = Watched(board, line, stack.enter_context(_running(line, stop)))
        limits = Limits(args.max_upload << 20)  # one photo at a time: the line keeps its pace
        app = make_app(Service(detector, args.model, watched), access, limits)
        with serving(app, bound) as thread:
            _announce(bound.getsockname(), token, given=bool(args.token), quiet=args.quiet)
            while thread.is_alive() and not stop.wait(0.5):
                pass
    if line and outlet:
        out("\n".join(summary([line], [outlet])))
    return 0


def _require_extra() -> None:
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"fre-serve needs {package}, which is not installed; run: "
                "pip install 'fre-edge[serve]'"
            )


@contextmanager
def _running(line: Line, stop: threading.Event) -> Iterator[threading.Event]:
    """Run a line in a thread while the block runs; the event it yields is set at its end."""
    ended = threading.Event()

    def run() -> None:
        try:
            line.run(stop)
        finally:
            ended.set()

    thread = threading.Thread(target=run, name=f"line {line.name}", daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        stop.set()
        thread.join(10)


def _announce(address: tuple[str, int], token: str | None, *, given: bool, quiet: bool) -> None:
    """Say where the page is; a token that we made is told here and nowhere else."""
    host, number = address[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    secret = f"#token={token}" if token and not given else ""
    out(f"serving http://{f'[{host}]' if ':' in host else host}:{number}/{secret}")
    if token and not quiet:
        out("programs send the token as: Authorization: Bearer TOKEN")
    if not quiet:
        out("Ctrl-C ends it")
    sys.stdout.flush()
