"""What is to be fitted, before any photo is read; the same in every process that takes part."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fre_edge.backbones import Backbone, build_backbone
from fre_edge.checkpoint import Checkpoint
from fre_edge.features import FeatureExtractor, FeatureShape
from fre_edge.gathering import Gatherer, Keep, Stream
from fre_edge.options import FitOptions
from fre_edge.saved import Identity
from fre_edge.strategies.base import Rank
from fre_edge.strategies.choose import Plan
from fre_runtime.errors import DataError, UsageError
from fre_runtime.files import good_images
from fre_runtime.groups import GroupTable
from fre_runtime.photos import PhotoReader, on_photos


@dataclass(frozen=True)
class Job:
    """See the module."""

    folder: Path | None
    paths: list[Path]
    options: FitOptions
    """Layers, overlap and the size that regions go with filled in."""
    backbone: Backbone
    extractor: FeatureExtractor
    shapes: list[FeatureShape]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self.backbone.size

    @property
    def identity(self) -> Identity:
        """What the features depend on."""
        return Identity.of(self.backbone, self.extractor.pool, self.shapes, self.options)

    def facts(self) -> dict[str, object]:
        """All that must be the same in every process, by name."""
        options = asdict(replace(self.options, scratch=None))
        folder = self.folder
        names = [str(path.relative_to(folder) if folder else path) for path in self.paths]
        return self.identity.fields() | options | {"photos": _digest(names)}

    def reader(self, paths: Sequence[Path]) -> PhotoReader:
        """Reads some of the photos."""
        return make_reader(paths, self.size, self.options)

    def gatherer(self, plan: Plan, photos: int, scratch: Path | None) -> Gatherer:
        """Where the features of up to so many photos go."""
        return make_gatherer(plan, self.options, self.shapes, photos, scratch)

    def checkpoint(self, plan: Plan, paths: Sequence[Path], processes: int) -> Checkpoint | None:
        """Where progress on ``paths`` is saved."""
        if plan.scratch is None:
            return None
        options = self.options
        sketch = [_table(options.groups), options.components, options.seed] if plan.streams else []
        same = {"method": plan.method, "number of processes": processes}
        same |= {"photos": _digest([_as_it_is(path) for path in paths]), "sketch": sketch}
        same |= {"max_pixels": options.max_pixels}
        return Checkpoint(plan.scratch, self.identity.fields() | same)


def prepare(images: str | Path | Sequence[Path] | None, options: FitOptions) -> Job:
    """Find the photos and build the backbone; raises as `fre_edge.fit` does."""
    options.check()
    if isinstance(images, str | Path):
        folder = Path(images)
        paths = good_images(folder)
    else:
        folder, paths = None, list(images or [])
        if images is not None and not paths:
            raise DataError("the list of photos is empty; give at least 2 photos of good parts")
    if paths and options.groups not in ("auto", "none"):
        GroupTable.read(Path(options.groups))  # a bad file is found before the work
    backbone = build_backbone(
        options.backbone, options.layers, options.weights, options.seed, options.size
    )
    options = replace(
        options,
        layers=backbone.layers,
        pool_overlap=_pool_overlap(backbone, options),
        max_components=max_components(backbone, options),
        view=on_photos(options.view, paths, options.max_pixels),
    )
    pool = backbone.spec.pool if options.pool is None else options.pool
    extractor = FeatureExtractor(backbone, pool, overlap=options.pool_overlap or ())
    shapes = extractor.shapes(*backbone.size)
    return Job(folder, paths, options, backbone, extractor, shapes)


def _pool_overlap(backbone: Backbone, options: FitOptions) -> tuple[str, ...]:
    if options.pool_overlap is None:
        return tuple(layer for layer in backbone.spec.overlap if layer in backbone.layers)
    _check_tapped("pool_overlap", options.pool_overlap, backbone)
    return options.pool_overlap


def max_components(backbone: Backbone, options: FitOptions) -> dict[str, int]:
    """Limits of the layers of ``backbone``: those of ``options``, or its own where they apply."""
    if options.max_components is None:
        if options.subspace != "whole" or options.components is not None:
            return {}
        known = backbone.spec.max_components
        return {layer: known[layer] for layer in backbone.layers if layer in known}
    _check_tapped("max_components", options.max_components, backbone)
    return options.max_components


def _check_tapped(option: str, layers: Iterable[str], backbone: Backbone) -> None:
    for layer in layers:
        if layer not in backbone.layers:
            raise UsageError(
                f"{option} names {layer!r}, which is not tapped; tapped are "
                f"{', '.join(backbone.layers)}"
            )


def make_reader(paths: Sequence[Path], size: tuple[int, int], options: FitOptions) -> PhotoReader:
    """Read photos as ``options`` have them seen."""
    return PhotoReader(paths, *size, options.view, options.max_pixels)


def make_gatherer(
    plan: Plan,
    options: FitOptions,
    shapes: Sequence[FeatureShape],
    photos: int,
    scratch: Path | None,
) -> Gatherer:
    """Where the features of up to so many photos go as ``plan`` says."""
    if plan.streams:
        rank = Rank(options.variance, options.components)
        return Stream(shapes, rank, options.groups, options.seed)
    return Keep(shapes, photos, scratch)


def _as_it_is(path: Path) -> str:
    """A photo's name, size and time: another photo under the same name is another one."""
    try:
        status = path.stat()
    except OSError:  # skipped later, with the reason
        return str(path)
    return f"{path}\0{status.st_size}\0{status.st_mtime_ns}"


def _table(groups: str) -> str:
    """The option ``groups``, with what stands in the table that it may name."""
    if groups in ("auto", "none"):
        return groups
    return f"{groups} with sha256 {hashlib.sha256(Path(groups).read_bytes()).hexdigest()}"


def _digest(names: Sequence[str]) -> str:
    joined = "\0".join(names).encode("utf-8", "surrogateescape")
    return f"{len(names)} with sha256 {hashlib.sha256(joined).hexdigest()}"
