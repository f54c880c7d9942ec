"""Streaming the good photos from disk: read ahead, as the model takes them, the unusable named."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fre_runtime.errors import ImageError
from fre_runtime.geometry import Plan, View
from fre_runtime.image import MAX_PIXELS, Image, read_image
from fre_runtime.ordered import ordered_map

READERS = 4
"""Threads that decode; more than cores, since some of them wait for the disk."""
AHEAD = 32
"""Photos decoded ahead: memory stays constant however many there are. Of photos in tiles, which
may be hundreds, only `READERS`."""


class Photo(NamedTuple):
    """A photo, or a tile of one, at model size."""

    path: Path
    """Of the photo; tiles of one photo follow each other."""
    image: Image
    """uint8 (H, W, 3), RGB."""


@dataclass
class PhotoReader:
    """Reads photos in order; what cannot be used is kept in `skipped` with the reason."""

    paths: Sequence[Path]
    height: int
    width: int
    view: View = field(default_factory=View)
    max_pixels: int = MAX_PIXELS
    skipped: dict[Path, str] = field(default_factory=dict)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    """Sizes (height, width) that the photos had on disk."""
    brightest: int = 0
    """Largest pixel value met, 0..255."""
    start: int = 0
    """Paths to leave out at the beginning: an earlier reader had them."""
    seen: dict[bytes, Path] = field(default_factory=dict)
    """The pictures met, by their sha256 at model size."""

    @cached_property
    def expected(self) -> int:
        """How many photos or tiles there may be, judging by the first photo that can be read."""
        first = _first(self.view, self.paths, self.max_pixels) if self.view.tile else None
        return len(self.paths) * (len(first.tiles) if first else 1)

    def __iter__(self) -> Iterator[Photo]:
        """Yield the readable photos, or their tiles, each distinct picture once."""
        paths = self.paths[self.start :]
        ahead = READERS if self.view.tile else AHEAD
        reads = ordered_map(self._read, paths, READERS, ahead)
        for path, read in zip(paths, reads, strict=True):
            if isinstance(read, str):
                self.skipped[path] = read
                continue
            images, size = read
            first = self.seen.setdefault(_digest(images), path)
            if first != path:
                self.skipped[path] = _copy_of(first)
                continue
            self.sizes.add(size)
            self.brightest = max(self.brightest, *(int(image.max()) for image in images))
            for image in images:
                yield Photo(path, image)

    def absorb(self, other: "PhotoReader", *, leave_out: bool) -> dict[Path, Path]:
        """Take over what the reader of later paths found, as if this one had read them.

        Returns those photos of ``other`` that are copies of earlier ones, with these; they count
        as skipped where ``leave_out`` says so.
        """
        copies = {}
        for digest, path in other.seen.items():
            first = self.seen.setdefault(digest, path)
            if first != path:
                copies[path] = first
        found = dict(other.skipped)
        if leave_out:  # a copy of one of them is one of the first as well
            firsts = {_copy_of(path): _copy_of(first) for path, first in copies.items()}
            found = {path: firsts.get(why, why) for path, why in found.items()}
            found |= {path: _copy_of(first) for path, first in copies.items()}
        place = {path: i for i, path in enumerate(other.paths)}
        self.skipped |= dict(sorted(found.items(), key=lambda item: place[item[0]]))
        self.sizes |= other.sizes
        self.brightest = max(self.brightest, other.brightest)
        return copies

    def _read(self, path: Path) -> str | tuple[list[Image], tuple[int, int]]:
        try:
            image = read_image(path, self.max_pixels)
            plan = self.view.plan(image.shape[0], image.shape[1])
        except ImageError as error:
            return str(error).removeprefix(f"{path}: ")
        images = list(plan.inputs(image, self.height, self.width))
        if not self.view.is_whole:  # what was not resized is still a part of the whole photo
            images = [np.array(tile) for tile in images]
        return images, plan.size


def on_photos(view: View, paths: Sequence[Path], max_pixels: int) -> View:
    """The view, for photos of the size of the first that can be looked at so; see `View.on`."""
    if not view.regions or view.size:
        return view
    first = _first(view, paths, max_pixels)
    return view.on(*first.size) if first else view


def _first(view: View, paths: Sequence[Path], max_pixels: int) -> Plan | None:
    """The view on the first photo that can be read and holds what it looks at."""
    for path in paths:
        with contextlib.suppress(ImageError):
            image = read_image(path, max_pixels)
            return view.plan(image.shape[0], image.shape[1])
    return None


def _copy_of(first: Path) -> str:
    return f"is a copy of {first.name}"


def _digest(images: list[Image]) -> bytes:
    digest = hashlib.sha256()
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    return digest.digest()
