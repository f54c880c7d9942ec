"""fre-run: score photos or a video."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fre_runtime.commands.archive import add_archive_arguments, run_archive
from fre_runtime.commands.common import add_max_pixels_argument, add_model_arguments, out
from fre_runtime.commands.live import add_live_arguments, is_live, run_live
from fre_runtime.detector import Detector
from fre_runtime.errors import ImageError, OutputError, UsageError
from fre_runtime.files import VIDEO_SUFFIXES
from fre_runtime.image import Image, encode_image
from fre_runtime.overlay import overlay
from fre_runtime.progress import track
from fre_runtime.records import record, scored
from fre_runtime.result import Result
from fre_runtime.sources import Frame, expand, frames
from fre_runtime.whole_file import write_whole


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of fre-run."""
    parser = argparse.ArgumentParser(
        prog="fre-run",
        description="Score photos, a video, or live sources. Exits with 1 when a photo could not "
        "be scored, with 130 when stopped by Ctrl-C before all photos were.",
    )
    add_model_arguments(parser, optional=True)
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="image, folder, glob pattern or video file; live: camera:0, address of a stream",
    )
    add_max_pixels_argument(parser)
    parser.add_argument(
        "--save",
        type=Path,
        metavar="DIR",
        help="write pictures with heat map; live: of anomalies, under a quota",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write JSON lines (live: append); - for stdout"
    )
    parser.add_argument("--quiet", action="store_true", help="only the summary")
    add_archive_arguments(parser)
    add_live_arguments(parser)
    args = parser.parse_args(argv)
    if not args.config and not (args.model and args.sources):
        parser.error("give MODEL and at least one SOURCE, or --config FILE")
    return args


def run(args: argparse.Namespace) -> int:
    """Run fre-run."""
    if is_live(args):
        if args.ray:
            raise UsageError("--ray scores files; run live sources without it")
        return run_live(args)
    if args.ray:
        return run_archive(args)
    paths = expand(args.sources)
    if args.json and any(path.resolve() == Path(args.json).resolve() for path in paths):
        raise UsageError(f"--json {args.json} is one of the sources; write elsewhere")
    detector = Detector(args.model, args.engine, args.variant, args.threads)
    counts = {"good": 0, "anomalous": 0, "invalid": 0}
    pictures = _Pictures(args.save, paths) if args.save else None
    listed = args.json != "-" and not args.quiet
    stopped = False
    with _open_lines(args.json) as lines:
        try:
            for taken in _shown(frames(paths, args.max_pixels), paths, quiet=args.quiet):
                frame, result = scored(detector, taken)
                counts[result.state if result else "invalid"] += 1
                if lines:
                    lines.write(json.dumps(record(frame, result), ensure_ascii=False) + "\n")
                if listed:
                    out(_line(frame, result))
                if pictures and result and frame.image is not None:
                    _save(pictures.path(frame), frame.image, result)
        except KeyboardInterrupt:
            stopped = True
    if args.json != "-":
        out(", ".join(f"{count} {state}" for state, count in counts.items()))
    if stopped:
        raise KeyboardInterrupt
    if counts["invalid"]:
        total = sum(counts.values())
        raise ImageError(f"{counts['invalid']} of {total} images could not be scored")
    return 0


def _shown(found: Iterator[Frame], paths: list[Path], *, quiet: bool) -> Iterator[Frame]:
    """With progress, unless the results themselves scroll by."""
    if quiet or sys.stdout.isatty():
        return found
    videos = any(path.suffix.lower() in VIDEO_SUFFIXES for path in paths)
    return track(found, None if videos else len(paths), "scoring")


def _line(frame: Frame, result: Result | None) -> str:
    where = f"{frame.source}#{frame.number}" if frame.number else frame.source
    if result is None:
        return f"invalid          {frame.error}"
    return f"{result.state:<10} {result.score:.3f} {where}"


def _open_lines(target: str | None) -> contextlib.AbstractContextManager[IO[str] | None]:
    if target is None:
        return contextlib.nullcontext()
    if target == "-":
        return contextlib.nullcontext(sys.stdout)
    try:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        return Path(target).open("w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error


def _save(path: Path, image: Image, result: Result) -> None:
    write_whole(path, encode_image(overlay(image, result), path.suffix), lasting=False)


class _Pictures:
    """Names of the saved pictures: the sources' own tree below ``folder``, none used twice."""

    def __init__(self, folder: Path, sources: list[Path]) -> None:
        self._folder = folder.resolve()
        resolved = [path.resolve() for path in sources]
        inside = [path for path in resolved if path.is_relative_to(self._folder)]
        if inside:
            raise UsageError(
                f"--save {folder} holds {inside[0]}, which would be overwritten; save elsewhere"
            )
        self._base = Path(os.path.commonpath([path.parent for path in resolved]))
        self._used: set[Path] = set()

    def path(self, frame: Frame) -> Path:
        source = Path(frame.source).resolve().relative_to(self._base)
        is_video = source.suffix.lower() in VIDEO_SUFFIXES
        name = f"{source.stem}_{frame.number:06d}.png" if is_video else f"{source.stem}.png"
        path = self._folder / source.with_name(name)
        if path in self._used:  # a.jpg beside a.png
            path = path.with_name(f"{source.name}.png")
        if not is_video:  # whose frames have a number each, and there may be very many
            self._used.add(path)
        return path
