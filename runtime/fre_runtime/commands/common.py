"""What all commands share: exit codes, one-line errors, the model arguments."""

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Protocol

import cv2

from fre_runtime.engines.loading import ENGINES
from fre_runtime.errors import FreError, UsageError
from fre_runtime.image import MAX_PIXELS
from fre_runtime.model_dir import CARD, MANIFEST
from fre_runtime.regions import Polygon, read_region
from fre_runtime.whole_file import check_writable, write_whole


class Command(Protocol):
    """A module that is a command."""

    def parse_args(self, argv: list[str] | None = None) -> argparse.Namespace:
        """Parse its command line."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do its work; returns the exit code."""
        ...


def run_command(command: Command, argv: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 misused.

    Whatever is wrong becomes one line on stderr.
    """
    _silence_decoders()
    for name in ("stdout", "stderr"):  # closed by the caller: `fre-info model >&-`
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be valid Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    code = 1
    try:
        args = command.parse_args(argv)
        _check_targets(args)
        code = command.run(args)
        sys.stdout.flush()
    except UsageError as error:
        code = _say(error, 2)
    except FreError as error:
        code = _say(error, 1)
    except BrokenPipeError:  # the reader of our output has gone: `fre-run ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a full disk under stdout or a result file
        code = _say(error, 1)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is left to flush has no place
    return code


def _say(error: Exception, code: int) -> int:
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
    return code


def _check_targets(args: argparse.Namespace) -> None:
    """Find out before the work that its results cannot be written where they are wanted."""
    for option in ("json", "report", "plot", "save", "video"):
        target = getattr(args, option, None)
        if target is None or target == "-":
            continue
        _check_outside_models(f"--{option} {target}", Path(target))
        if option == "json":
            check_writable(Path(target))


def _check_outside_models(what: str, path: Path) -> None:
    for folder in (path.resolve(), *path.resolve().parents):
        if (folder / MANIFEST).is_file() and (folder / CARD).is_file():
            raise UsageError(
                f"{what}: lies in the model directory {folder}, which would no longer match its "
                "manifest; write elsewhere"
            )


def _silence_decoders() -> None:
    """OpenCV's own lines on stderr would stand beside the one clear line that we print."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's AV_LOG_QUIET


def add_model_arguments(
    parser: argparse.ArgumentParser, *, several_threads: bool = False, optional: bool = False
) -> None:
    """Add MODEL, --engine, --variant and --threads; the last may be made a list."""
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        nargs="?" if optional else None,
        help="directory that fre-export wrote",
    )
    parser.add_argument(
        "--engine",
        choices=["auto", *ENGINES],
        default="auto",
        help="default: the first that is installed; fre-bench measures all that are",
    )
    parser.add_argument("--variant", default="fp32", help="precision variant (default fp32)")
    parser.add_argument(
        "--threads",
        type=positive_ints if several_threads else positive_int,
        metavar="N[,N...]" if several_threads else "N",
        help="CPU threads (default: what affinity, CPU quota and physical cores allow)",
    )


def add_region_argument(parser: argparse._ActionsContainer) -> None:
    """Add --roi, which may be given several times; `regions` reads it."""
    parser.add_argument(
        "--roi",
        action="append",
        metavar="X,Y,W,H|FILE.json",
        help="look at this part of the photo only: a rectangle in its pixels, or a JSON file with "
        "the corners [[x, y], ...] of a polygon; may be given several times",
    )


def regions(args: argparse.Namespace) -> list[Polygon] | None:
    """The polygons of --roi; None where it was not given."""
    if args.roi is None:
        return None
    return [polygon for text in args.roi for polygon in read_region(text)]


def add_max_pixels_argument(parser: argparse._ActionsContainer) -> None:
    """Add --max-pixels."""
    parser.add_argument(
        "--max-pixels",
        type=positive_int,
        default=MAX_PIXELS,
        metavar="N",
        help=f"refuse larger photos from their header (default {MAX_PIXELS})",
    )


def positive_int(text: str) -> int:
    """Parse an argument that must be a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def positive_ints(text: str) -> list[int]:
    """Parse a list of whole numbers of at least 1, separated by commas; each one once."""
    return list(dict.fromkeys(positive_int(part) for part in text.split(",")))


def positive_float(text: str) -> float:
    """Parse an argument that must be a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def fraction(text: str) -> float:
    """Parse an argument that must be a number in 0..1, ends excluded."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def out(line: str = "") -> None:
    """Print one line of a command's result."""
    sys.stdout.write(line + "\n")


def write_json(target: str, data: Any) -> None:  # noqa: ANN401 - any JSON value
    """Write ``data`` to the file ``target``, whole or not at all, or to stdout for "-"."""
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    path = Path(target)
    _check_outside_models(f"--json {target}", path)  # the command may just have written one
    write_whole(path, text.encode("utf-8", errors="backslashreplace"))
