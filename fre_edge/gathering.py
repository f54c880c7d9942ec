"""Where the features go as photos pass: kept, in memory or in files, or sketched at once."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fre_edge.features import FeatureShape
from fre_edge.grouping import BLOCK, FOLDS, SceneStream
from fre_edge.state import State, most_sampled
from fre_edge.strategies.base import BATCH, Features, Rank, check_finite, release
from fre_edge.strategies.incremental import sketch_rows
from fre_edge.strategies.sketch import Sketcher
from fre_edge.tensors import Tensors, below, prefixed, reserve
from fre_runtime.errors import DataError
from fre_runtime.groups import Groups


class Gatherer(Protocol):
    """Takes the features of one photo after the other."""

    def add(self, photo: Path, features: Sequence[Features]) -> None:
        """Take the flat features (D,) of each layer of the next photo."""
        ...

    def state(self) -> State:
        """What is kept of all photos; the last call."""
        ...

    def tensors(self) -> Tensors:
        """All that `restore` needs to go on from here."""
        ...

    def restore(self, tensors: Tensors) -> None:
        """Go on from `tensors`."""
        ...


class Keep:
    """Keeps the features of all photos, in memory or in files of ``folder``.

    Parameters
    ----------
    shapes
        Feature shape of each layer.
    most
        Photos, or tiles, that are expected; in memory there is room for more.
    folder
        Where to keep them; None = in memory.

    Raises
    ------
    OutputError
        When the disk has no room for the files.
    """

    def __init__(
        self, shapes: Sequence[FeatureShape], most: int, folder: Path | None = None
    ) -> None:
        self._filled = 0
        self._lost: Path | None = None
        if folder is None:
            self._layers = [np.empty((most, shape.dimension), np.float32) for shape in shapes]
        else:
            self._layers = []
            for i, shape in enumerate(shapes):
                path, size = folder / f"layer_{i}.f32", 4 * most * shape.dimension
                if not path.is_file() or path.stat().st_size != size:
                    self._lost = path
                reserve(path, size)
                self._layers.append(
                    np.memmap(path, np.float32, "r+", shape=(most, shape.dimension))
                )

    @property
    def dimensions(self) -> list[int]:
        """D of each layer."""
        return [layer.shape[1] for layer in self._layers]

    def add(self, photo: Path, features: Sequence[Features]) -> None:
        """See `Gatherer`."""
        if self._filled == len(self._layers[0]):
            for layer in self._layers:
                layer.resize((2 * self._filled, layer.shape[1]), refcheck=False)
        for layer, row in zip(self._layers, features, strict=True):
            layer[self._filled] = row
        self._filled += 1
        if self._filled % BATCH == 0:
            for layer in self._layers:
                release(layer)

    def state(self) -> State:
        """See `Gatherer`; views of what is kept."""
        return State.of([layer[: self._filled] for layer in self._layers])

    def tensors(self) -> Tensors:
        """See `Gatherer`; only for features in files, which stay where they are."""
        for layer in self._layers:
            if isinstance(layer, np.memmap):
                layer.flush()
        return {"filled": np.array([self._filled])}

    def restore(self, tensors: Tensors) -> None:
        """See `Gatherer`.

        Raises
        ------
        DataError
            When a file of features was not there, or had another size: what it held is lost.
        """
        if self._lost is not None:
            raise DataError(
                f"{self._lost}: is missing or was cut since the fit was stopped, and its features "
                "with it; give an empty folder to begin again"
            )
        self._filled = int(tensors["filled"][0])


class Stream:
    """Sketches the features of each fold as they come, in memory that does not grow with them.

    Photos are looked at in blocks of `BLOCK`: their scenes are found, each new scene goes to the
    fold with the fewest photos so far, and a random sample of photos is kept for the held-out
    scores. The same whatever the number of threads, and wherever it was interrupted and restored.
    """

    def __init__(self, shapes: Sequence[FeatureShape], rank: Rank, groups: str, seed: int) -> None:
        dimensions = [shape.dimension for shape in shapes]
        self._seed = seed
        self._scenes = SceneStream(dimensions[0], groups)
        rows = sketch_rows(rank)
        self._sketchers = [[Sketcher(d, rows) for _ in range(FOLDS)] for d in dimensions]
        self._block = [np.empty((BLOCK, d), np.float32) for d in dimensions]
        self._waiting: list[Path] = []
        self._sum = np.zeros(dimensions[0])
        self._count = 0
        self._fold_of = np.empty(0, np.int64)
        self._loads = np.zeros(FOLDS, np.int64)
        most = most_sampled(dimensions)
        self._kept = [np.empty((most, d), np.float32) for d in dimensions]
        # photo, scene and fold of each kept row
        self._of_kept = np.empty((3, most), np.int64)

    def add(self, photo: Path, features: Sequence[Features]) -> None:
        """See `Gatherer`."""
        for block, row in zip(self._block, features, strict=True):
            block[len(self._waiting)] = row
        self._waiting.append(photo)
        if len(self._waiting) == BLOCK:
            self._take_block()

    def _take_block(self) -> None:
        size = len(self._waiting)
        blocks = [block[:size] for block in self._block]
        for block in blocks:
            check_finite(block)
        self._sum += blocks[0].sum(0, dtype=np.float64)
        mean = self._sum / (self._count + size)
        groups = self._scenes.find(self._waiting, blocks[0], mean)
        folds = self._assign(groups)
        for sketchers, block in zip(self._sketchers, blocks, strict=True):
            for fold, sketcher in enumerate(sketchers):
                sketcher.add(block[folds == fold])
        for row in range(size):
            photo = self._count + row
            slot = self._slot(photo)
            if slot is not None:
                self._of_kept[:, slot] = photo, groups[row], folds[row]
                for kept, block in zip(self._kept, blocks, strict=True):
                    kept[slot] = block[row]
        self._count += size
        self._waiting = []

    def _slot(self, photo: int) -> int | None:
        """Place in a uniform random sample of all photos so far (Vitter's algorithm R)."""
        most = self._of_kept.shape[1]
        if photo < most:
            return photo
        slot = int(np.random.default_rng((self._seed, photo)).integers(photo + 1))
        return slot if slot < most else None

    def _assign(self, groups: Groups) -> NDArray[np.int64]:
        """Fold of each photo; large new scenes first, each to the fold with the fewest photos."""
        new = np.full(self._scenes.count - len(self._fold_of), -1)
        self._fold_of = np.concatenate([self._fold_of, new])
        scenes, sizes = np.unique(groups, return_counts=True)
        for i in np.argsort(-sizes, kind="stable"):
            scene = scenes[i]
            if self._fold_of[scene] < 0:
                self._fold_of[scene] = self._loads.argmin()
            self._loads[self._fold_of[scene]] += sizes[i]
        return self._fold_of[groups]

    def state(self) -> State:
        """See `Gatherer`."""
        if self._waiting:
            self._take_block()
        size = min(self._count, self._of_kept.shape[1])
        photos, groups, folds = self._of_kept[:, :size]
        return State(
            [kept[:size] for kept in self._kept],
            photos,
            groups,
            folds,
            self._count,
            self._scenes.count,
            [[sketcher.sketch() for sketcher in layer] for layer in self._sketchers],
        )

    def tensors(self) -> Tensors:
        """See `Gatherer`."""
        size, waiting = min(self._count, self._of_kept.shape[1]), len(self._waiting)
        found = {
            "counts": np.array([self._count, waiting]),
            "sum": self._sum,
            "fold_of": self._fold_of,
            "loads": self._loads,
            "of_kept": np.ascontiguousarray(self._of_kept[:, :size]),
            "waiting": np.frombuffer(b"\0".join(map(os.fsencode, self._waiting)), np.uint8),
        }
        found |= prefixed("scenes", self._scenes.tensors())
        for i, sketchers in enumerate(self._sketchers):
            found[f"{i}.kept"] = self._kept[i][:size]
            found[f"{i}.block"] = self._block[i][:waiting]
            for fold, sketcher in enumerate(sketchers):
                found |= prefixed(f"{i}.{fold}", sketcher.tensors())
        return found

    def restore(self, tensors: Tensors) -> None:
        """See `Gatherer`."""
        self._count, waiting = (int(n) for n in tensors["counts"])
        names = tensors["waiting"].tobytes().split(b"\0") if waiting else []
        self._waiting = [Path(os.fsdecode(name)) for name in names]
        self._sum = tensors["sum"].copy()
        self._fold_of = tensors["fold_of"]
        self._loads = tensors["loads"].copy()
        size = tensors["of_kept"].shape[1]
        self._of_kept[:, :size] = tensors["of_kept"]
        self._scenes.restore(below("scenes", tensors))
        for i, sketchers in enumerate(self._sketchers):
            self._kept[i][:size] = tensors[f"{i}.kept"]
            self._block[i][:waiting] = tensors[f"{i}.block"]
            for fold, sketcher in enumerate(sketchers):
                sketcher.restore(below(f"{i}.{fold}", tensors))
