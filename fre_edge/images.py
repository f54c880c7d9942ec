"""Streaming the good photos from disk: read ahead, resized, the unusable ones named."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fre_runtime.errors import ImageError
from fre_runtime.image import Image, read_image, resize

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

    def __iter__(self) -> Iterator[Photo]:
        """Yield the readable photos, each distinct picture once."""
        seen: dict[bytes, Path] = {}
        for path, read in self._read_ahead():
            if isinstance(read, str):
                self.skipped[path] = read
                continue
            image, size = read
            first = seen.setdefault(hashlib.sha256(image.tobytes()).digest(), path)
            if first != path:
                self.skipped[path] = f"is a copy of {first.name}"
                continue
            self.sizes.add(size)
            self.brightest = max(self.brightest, int(image.max()))
            yield Photo(path, image)

    def _read_ahead(self) -> Iterator[tuple[Path, str | tuple[Image, tuple[int, int]]]]:
        pending: deque[tuple[Path, Future[str | tuple[Image, tuple[int, int]]]]] = deque()
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="fre-read")
        try:
            for path in self.paths:
                pending.append((path, pool.submit(self._read, path)))
                if len(pending) >= AHEAD:
                    path, done = pending.popleft()
                    yield path, done.result()
            for path, done in pending:
                yield path, done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, path: Path) -> str | tuple[Image, tuple[int, int]]:
        try:
            image = read_image(path)
        except ImageError as error:
            return str(error).removeprefix(f"{path}: ")
        return resize(image, self.height, self.width), (image.shape[0], image.shape[1])
