"""Going on after a kill: what a fit has seen so far, saved every minute."""

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_edge.gathering import Gatherer
from fre_edge.tensors import Tensors, below, prefixed, read_tensors, write_tensors
from fre_runtime.errors import ArtifactError, DataError, OutputError
from fre_runtime.photos import PhotoReader

log = logging.getLogger(__name__)

FILE = "progress.safetensors"
EVERY = 60.0
"""Seconds between two savings."""


class Checkpoint:
    """The state of a gathering in ``folder``.

    Parameters
    ----------
    folder
        Where it is saved; features that lie in files are there as well.
    identity
        Whatever must be the same for a fit to go on, by name.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        self._path = folder / FILE
        self._identity = {name: json.dumps(value) for name, value in identity.items()}
        self._saved = time.monotonic()

    def resume(self, reader: PhotoReader, gatherer: Gatherer) -> list[Path]:
        """Set both to where an earlier fit was stopped; returns the photos that it had used.

        Raises
        ------
        DataError
            When what is saved belongs to another fit; names what differs.
        ArtifactError
            When it is damaged.
        """
        if not self._path.is_file():
            return []
        try:
            tensors, notes = read_tensors(self._path)
        except ArtifactError as error:
            raise ArtifactError(f"{error}; remove it to begin again") from error
        for name, value in self._identity.items():
            if notes.get(name) != value:
                raise DataError(
                    f"{self._path.parent}: the fit that was stopped there had another {name} "
                    f"({_short(notes.get(name))}, now {_short(value)}); repeat it as it was, or "
                    "give an empty folder"
                )
        gatherer.restore(below("gatherer", tensors))
        photos = restore_reader(reader, below("reader", tensors))
        log.info("going on after %d photos, from %s", len(photos), self._path.parent)
        return photos

    def note(self, reader: PhotoReader, gatherer: Gatherer, photos: list[Path]) -> None:
        """Save, if it is time."""
        if time.monotonic() - self._saved >= EVERY:
            self.save(reader, gatherer, photos)

    def save(self, reader: PhotoReader, gatherer: Gatherer, photos: list[Path]) -> None:
        """Save; where the disk is full, warn and keep what was saved before."""
        self._saved = time.monotonic()
        # The reader runs ahead of what has been gathered.
        start = reader.paths.index(photos[-1]) + 1 if photos else 0
        tensors = prefixed("gatherer", gatherer.tensors())
        tensors |= prefixed("reader", reader_tensors(reader, photos, start))
        size = sum(tensor.nbytes for tensor in tensors.values())
        try:
            if shutil.disk_usage(self._path.parent).free < size:
                raise OutputError(f"{FILE} needs {size} bytes, and the disk has no room for them")
            write_tensors(self._path, tensors, self._identity)
        except OutputError as error:
            log.warning("progress could not be saved in %s: %s", self._path.parent, error)


def reader_tensors(reader: PhotoReader, photos: list[Path], end: int) -> dict[str, NDArray[Any]]:
    """What ``reader`` found in its first ``end`` paths, ``photos`` being those used, as arrays."""
    place = {path: i for i, path in enumerate(reader.paths)}
    skipped = [(place[p], why) for p, why in reader.skipped.items() if place[p] < end]
    seen = {digest: place[p] for digest, p in reader.seen.items() if place[p] < end}
    return {
        "start": np.array([end]),
        "photos": np.array([place[path] for path in photos], np.int64),
        "seen": np.frombuffer(b"".join(seen), np.uint8).reshape(-1, 32),
        "seen_at": np.array(list(seen.values()), np.int64),
        "sizes": np.array(sorted(reader.sizes), np.int64).reshape(-1, 2),
        "brightest": np.array([reader.brightest]),
        "skipped": np.frombuffer(json.dumps(skipped).encode(), np.uint8),
    }


def restore_reader(reader: PhotoReader, tensors: Tensors) -> list[Path]:
    """The inverse of `reader_tensors`; returns the photos used."""
    paths = reader.paths
    reader.start = int(tensors["start"][0])
    reader.brightest = int(tensors["brightest"][0])
    reader.sizes = {(int(h), int(w)) for h, w in tensors["sizes"]}
    skipped = json.loads(tensors["skipped"].tobytes())
    reader.skipped = {paths[int(i)]: reason for i, reason in skipped}
    seen = zip(tensors["seen"], tensors["seen_at"], strict=True)
    reader.seen = {digest.tobytes(): paths[i] for digest, i in seen}
    return [paths[i] for i in tensors["photos"]]


def clear(folder: Path) -> None:
    """Remove what fits left in ``folder``, and the folder where nothing else is in it."""
    for path in [folder / FILE, *folder.glob("layer_*.f32")]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # other things are in it, or another process was faster
        folder.rmdir()


def _short(value: str | None) -> str:
    return "none" if value is None else value if len(value) <= 60 else f"{value[:57]}..."
