"""Where ``fre-run`` takes images from: files, folders, glob patterns, one video file."""

import glob
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2

from fre_runtime.errors import DataError, FreError, ImageError
from fre_runtime.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, list_files
from fre_runtime.image import MAX_PIXELS, Image, read_image, to_rgb
from fre_runtime.live.addresses import shown


@dataclass(frozen=True)
class Frame:
    """One picture to score, or the reason why there is none."""

    source: str
    number: int
    """Index within the source, from 0."""
    image: Image | None
    error: str | None = None
    decode_ms: float = 0.0
    """Milliseconds that reading and decoding took."""
    encoded: bytes | None = None
    """The picture as a file, where it is decoded only when it is needed; see `decoded`."""
    max_pixels: int = MAX_PIXELS
    """Where that file promises more, it is refused from its header."""

    def decoded(self) -> "Frame":
        """The frame with its picture, or with the reason why it cannot be decoded."""
        if self.encoded is None:
            return self
        start = time.perf_counter()
        try:
            image = read_image(self.encoded, self.max_pixels)
        except ImageError as error:
            return replace(self, encoded=None, error=f"{self.source}: {error}")
        decode_ms = (time.perf_counter() - start) * 1e3
        return replace(self, encoded=None, image=image, decode_ms=decode_ms)


def expand(arguments: list[str]) -> list[Path]:
    """Turn files, folders and glob patterns into the files that they mean, in order.

    Folders give the images below them; files are taken whatever their suffix.

    Raises
    ------
    DataError
        When an argument matches nothing.
    """
    paths: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if not argument:
            raise DataError("an empty name is no file, folder or pattern")
        if path.is_dir():
            found = [p for p in list_files(path) if p.suffix.lower() in IMAGE_SUFFIXES]
            if not found:
                raise DataError(f"{path}: holds no image file")
        elif path.exists():
            found = [path]
        else:
            matches = (Path(p) for p in sorted(glob.glob(argument, recursive=True)))
            found = [p for p in matches if p.is_file()]
            if not found:
                raise DataError(f"{shown(argument)}: no such file, folder or pattern")
        paths += found
    return paths


def frames(paths: list[Path], max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """Read each path in turn, videos frame by frame; what cannot be read says why.

    Larger images than ``max_pixels`` are refused from their header.
    """
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield from video_frames(path, max_pixels)
            continue
        start = time.perf_counter()
        try:
            image = read_image(path, max_pixels)
        except FreError as error:
            yield Frame(str(path), 0, None, str(error))
        else:
            yield Frame(str(path), 0, image, decode_ms=(time.perf_counter() - start) * 1e3)


def video_frames(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """Every frame of a video file; the last one may say why there are no more.

    Where frames would be larger than ``max_pixels``, none is decoded.
    """
    number, error = 0, None
    capture = cv2.VideoCapture(str(path))
    try:
        width, height = (
            int(capture.get(name)) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > max_pixels:
            error = (
                f"its frames are {width} x {height} pixels, the limit is {max_pixels}; make them "
                "smaller, or raise the limit with --max-pixels"
            )
        while error is None:
            start = time.perf_counter()
            ok, picture = capture.read()
            if not ok:
                break
            rgb = to_rgb(picture, max_pixels)
            yield Frame(str(path), number, rgb, decode_ms=(time.perf_counter() - start) * 1e3)
            number += 1
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if error is None and 0 < number < 0.99 * promised:  # containers may round the count
            error = f"breaks off after {number} of {promised} frames"
    except (cv2.error, ImageError) as trouble:
        error = f"breaks off after {number} frames ({getattr(trouble, 'err', None) or trouble})"
    finally:
        capture.release()
    if error or number == 0:
        error = error or "no frame can be decoded from this video"
        yield Frame(str(path), number, None, f"{path}: {error}")
