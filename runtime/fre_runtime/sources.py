"""Where ``fre-run`` takes images from: files, folders, glob patterns, one video file."""

import glob
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from fre_runtime.errors import DataError, FreError, ImageError
from fre_runtime.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, list_files
from fre_runtime.image import MAX_PIXELS, Image, check_image, read_image


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
                raise DataError(f"{argument}: no such file, folder or pattern")
        paths += found
    return paths


def frames(paths: list[Path], max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """Read each path in turn, videos frame by frame; what cannot be read says why.

    Larger images than ``max_pixels`` are refused from their header.
    """
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield from video_frames(path)
            continue
        start = time.perf_counter()
        try:
            image = read_image(path, max_pixels)
        except FreError as error:
            yield Frame(str(path), 0, None, str(error))
        else:
            yield Frame(str(path), 0, image, decode_ms=(time.perf_counter() - start) * 1e3)


def video_frames(path: Path) -> Iterator[Frame]:
    """Every frame of a video file; the last one may say why there are no more."""
    capture = cv2.VideoCapture(str(path))
    number = 0
    try:
        while True:
            start = time.perf_counter()
            ok, bgr = capture.read()
            if not ok:
                break
            rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            decode_ms = (time.perf_counter() - start) * 1e3
            yield Frame(str(path), number, check_image(rgb, str(path)), decode_ms=decode_ms)
            number += 1
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    finally:
        capture.release()
    if 0 < number < 0.99 * promised:  # containers may round the count
        error = f"{path}: breaks off after {number} of {promised} frames"
        yield Frame(str(path), number, None, error)
    if number == 0:
        yield Frame(str(path), 0, None, f"{path}: no frame can be decoded from this video")
