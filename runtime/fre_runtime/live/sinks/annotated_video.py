"""Video of every picture with its heat map, in pieces, under a disk quota."""

import re
from pathlib import Path

import cv2

from fre_runtime.image import Image
from fre_runtime.live.events import Event
from fre_runtime.live.record import FILE_NAME, file_name, timestamp
from fre_runtime.live.sinks.quota import QuotaFolder
from fre_runtime.overlay import captioned, overlay

DEFAULT_MIB = 4096
SUFFIX = ".mkv"  # can be played even where its end was never written
OURS = re.compile(rf"{FILE_NAME}\.mkv")
CODEC = "mp4v"
RATE = 10.0
"""Frames a second at which it is played; each picture is one frame, whenever it came."""
PIECE_FRAMES = 3000


class AnnotatedVideo:
    """Writes a video for each line, named after the time of its first picture.

    A new piece begins after `PIECE_FRAMES` pictures, and where the picture changes its size; the
    oldest pieces are removed where all take more than ``quota`` bytes.

    Raises
    ------
    OutputError
        When the folder cannot be used.
    """

    def __init__(self, folder: Path, quota: int = DEFAULT_MIB << 20) -> None:
        self._quota = QuotaFolder(folder, quota, OURS)
        self._folder = folder
        self._limit = quota
        self._pieces: dict[str, _Piece] = {}

    def emit(self, event: Event) -> None:
        """Add one picture; raises OSError where it cannot be written."""
        if event.image is None:
            return
        picture = drawn(event)
        lines = len(self._pieces.keys() | {event.line})
        piece = self._pieces.get(event.line)
        if piece is not None and not piece.takes(picture, self._limit // (4 * lines)):
            self._end(event.line)
        # Files grow by leaps: where many lines share little, the largest ends, and may be removed.
        while self._pieces and self._growing() + picture.nbytes > self._limit:
            self._end(max(self._pieces, key=lambda line: self._pieces[line].bytes()))
        # Before the frame: OpenCV does not say when a disk is full.
        self._quota.make_room(picture.nbytes, self._growing())
        piece = self._pieces.get(event.line)
        if piece is None:
            piece = _Piece(self._folder / f"{file_name(event)}{SUFFIX}", picture)
            self._pieces[event.line] = piece
        piece.add(picture)

    def close(self) -> None:
        """End all pieces."""
        for line in list(self._pieces):
            self._end(line)

    def _growing(self) -> int:
        return sum(piece.bytes() for piece in self._pieces.values())

    def _end(self, line: str) -> None:
        piece = self._pieces.pop(line, None)
        if piece is not None:
            piece.close()
            self._quota.add(piece.path, piece.bytes())


class _Piece:
    """One video file."""

    def __init__(self, path: Path, first: Image) -> None:
        self.path = path
        self._shape = first.shape
        self._frames = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (first.shape[1], first.shape[0])
        self._writer = cv2.VideoWriter(
            str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODEC), RATE, size
        )
        if not self._writer.isOpened():
            raise OSError(f"{path}: a video of {size[0]} x {size[1]} cannot be written")

    def takes(self, picture: Image, limit: int) -> bool:
        """Whether a picture belongs into this piece, too."""
        full = self._frames >= PIECE_FRAMES or self.bytes() > limit
        return picture.shape == self._shape and not full and self.path.exists()

    def add(self, picture: Image) -> None:
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self._frames += 1

    def bytes(self) -> int:
        """What it takes on the disk so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        self._writer.release()


def drawn(event: Event) -> Image:
    """The event's picture with heat map and caption, its sides even, as codecs want them."""
    if event.image is None:
        raise ValueError("the event has no picture")
    said = f"{event.score:.3f} {event.state}" if event.score is not None else event.state
    caption = f"{said} {timestamp(event)[11:19]}Z {event.line}"
    if event.result is None:
        picture = captioned(event.image, caption, event.state)
    else:
        picture = overlay(event.image, event.result, caption)
    return picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
