"""Features of all photos of a category, extracted once and kept on disk between runs."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

import fre_edge
import fre_runtime
from fre_edge import Fit, FitOptions, fit
from fre_edge.extraction import extract, trunk_for
from fre_edge.job import max_components
from fre_edge.state import State
from fre_runtime.groups import Groups
from fre_runtime.photos import PhotoReader

FEW = 8
"""Photos of the fit that only tells shapes and defaults."""
CODE = ("backbones.py", "zoo.py", "grids.py", "features.py", "extraction.py")


@dataclass(frozen=True)
class Features:
    """Features of some photos, by layer."""

    photos: list[Path]
    """Those that can be used, in order."""
    layers: dict[str, np.ndarray]
    """float32 (N, D) of each, a read-only view of a file."""

    def rows(self, layers: Sequence[str], photos: Sequence[Path]) -> list[np.ndarray]:
        """float32 (n, D) of each of ``layers``; every one of ``photos`` must be known."""
        index = {path: i for i, path in enumerate(self.photos)}
        wanted = [index[path] for path in photos]
        return [np.asarray(self.layers[layer][wanted]) for layer in layers]


@dataclass(frozen=True)
class Store:
    """Extracted features below a folder, no more than ``limit`` bytes of them."""

    folder: Path
    limit: int = 4 << 30

    def get(self, template: Fit, photos: Sequence[Path]) -> Features:
        """Features of ``photos`` as ``template`` extracts them, from disk where they lie there."""
        path = self.folder / self._key(template, photos)
        if not path.is_dir():
            self._fill(path, template, photos)
        os.utime(path)  # the ones used last stay longest
        used = [photos[i] for i in json.loads((path / "used.json").read_text())]
        names = template.backbone.layers
        arrays = [np.load(path / f"{i}.npy", mmap_mode="r") for i in range(len(names))]
        return Features(used, dict(zip(names, arrays, strict=True)))

    def _key(self, template: Fit, photos: Sequence[Path]) -> str:
        digest = hashlib.sha256()
        for module, files in ((fre_edge, CODE), (fre_runtime, ("image.py", "photos.py"))):
            for file in files:
                digest.update((Path(str(module.__file__)).parent / file).read_bytes())
        backbone = template.backbone
        about = (backbone.spec.name, backbone.layers, backbone.weights.sha256, template.size)
        pooling = (template.pool, template.options.pool_overlap)
        digest.update(repr((*about, *pooling, cv2.__version__)).encode())
        for photo in photos:
            digest.update(photo.read_bytes())
        return digest.hexdigest()[:32]

    def _fill(self, path: Path, template: Fit, photos: Sequence[Path]) -> None:
        trunk = trunk_for(template.extractor(), template.size, len(photos))
        used, layers = extract(trunk, PhotoReader(photos, *template.size), template.shapes)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._shrink(sum(layer.nbytes for layer in layers))
        work = Path(tempfile.mkdtemp(dir=self.folder))
        for i, layer in enumerate(layers):
            np.save(work / f"{i}.npy", layer)
        index = {photo: i for i, photo in enumerate(photos)}
        (work / "used.json").write_text(json.dumps([index[photo] for photo in used]))
        work.rename(path)

    def _shrink(self, incoming: int) -> None:
        """Drop what was used longest ago until ``incoming`` bytes fit as well."""
        entries = sorted(self.folder.iterdir(), key=lambda entry: entry.stat().st_mtime)
        sizes = {e: sum(file.stat().st_size for file in e.iterdir()) for e in entries}
        for entry in entries:
            if sum(sizes.values()) + incoming <= self.limit:
                break
            shutil.rmtree(entry)
            del sizes[entry]


def template(options: FitOptions, photos: Sequence[Path]) -> Fit:
    """A fit of a few photos, for its extractor, shapes and defaults; `refit` gives real ones."""
    return fit(photos[:FEW], replace(options, groups="none"))


def refitted(
    base: Fit, options: FitOptions, photos: Sequence[Path], rows: list[np.ndarray], groups: Groups
) -> Fit:
    """What `fit` makes of ``photos``, whose features and scenes are known.

    Parameters
    ----------
    base
        A `template` with the layers of ``options``.
    rows
        float32 (N, D) of each layer.
    groups
        Scene of each photo, (N,).
    """
    asked = replace(
        options,
        layers=base.backbone.layers,
        pool_overlap=base.options.pool_overlap,
        max_components=max_components(base.backbone, options),
    )
    plan = base.plan if asked.method == "auto" else replace(base.plan, method=asked.method)
    known = replace(State.of(rows), groups=groups)
    return replace(base, options=asked, plan=plan, photos=list(photos)).refit(known)
