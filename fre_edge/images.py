"""Streaming the good photos from disk: read ahead, resized, the unusable ones named."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fre_runtime.errors import ImageError
from fre_runtime.image import Image, read_image, resize
from fre_runtime.ordered import ordered_map

READERS = 4
"""Threads that decode; more than cores, since some of them wait for the disk."""
AHEAD = 32
"""Photos decoded ahead: memory stays constant however many there are."""


class Photo(NamedTuple):
    """A photo at model size."""

    path: Path
    image: Image
    """uint8 (H, W, 3), RGB."""


@dataclass
class PhotoReader:
    """Reads photos in order; what cannot be used is kept in `skipped` with the reason."""

    paths: Sequence[Path]
    height: int
    width: int
    skipped: dict[Path, str] = field(default_factory=dict)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    """Sizes (height, width) that the photos had on disk."""
    brightest: int = 0
    """Largest pixel value met, 0..255."""
    start: int = 0
    """Paths to leave out at the beginning: an earlier reader had them."""
    seen: dict[bytes, Path] = field(default_factory=dict)
    """The pictures met, by their sha256 at model size."""

    def __iter__(self) -> Iterator[Photo]:
        """Yield the readable photos, each distinct picture once."""
        paths = self.paths[self.start :]
        reads = ordered_map(self._read, paths, READERS, AHEAD)
        for path, read in zip(paths, reads, strict=True):
            if isinstance(read, str):
                self.skipped[path] = read
                continue
            image, size = read
            first = self.seen.setdefault(hashlib.sha256(image.tobytes()).digest(), path)
            if first != path:
                self.skipped[path] = f"is a copy of {first.name}"
                continue
            self.sizes.add(size)
            self.brightest = max(self.brightest, int(image.max()))
            yield Photo(path, image)

    def _read(self, path: Path) -> str | tuple[Image, tuple[int, int]]:
        try:
            image = read_image(path)
        except ImageError as error:
            return str(error).removeprefix(f"{path}: ")
        return resize(image, self.height, self.width), (image.shape[0], image.shape[1])
