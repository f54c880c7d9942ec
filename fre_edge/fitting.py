"""Fitting FRE on a folder of photos of good parts, and going on from fits of earlier ones."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fre_edge.backbones import Backbone
from fre_edge.distributed import gather_all
from fre_edge.expectation import Expectation
from fre_edge.extraction import Trunk, gather
from fre_edge.features import FeatureExtractor, FeatureShape
from fre_edge.fre import FRE, Head
from fre_edge.fusion import Fusion
from fre_edge.gathering import Keep
from fre_edge.job import Job, make_gatherer, make_reader, prepare
from fre_edge.learning import Learned, learn, recalibrate
from fre_edge.memory import check_memory
from fre_edge.options import FitOptions
from fre_edge.partition import Partition, partition_of
from fre_edge.saved import Identity, Saved
from fre_edge.state import State, merge_states, stays_complete
from fre_edge.strategies.base import Floats, Rank, Subspace
from fre_edge.strategies.choose import Plan, choose, make_strategy
from fre_edge.team import ALONE, Team
from fre_edge.zoo import backbone_spec
from fre_runtime.calibration import Calibration
from fre_runtime.errors import DataError, UsageError
from fre_runtime.groups import Groups, GroupTable
from fre_runtime.photos import PhotoReader

log = logging.getLogger(__name__)

MANY_TILES = 3000
"""Tiles from which the exact fit takes minutes."""


@dataclass(frozen=True)
class Fit:
    """A fitted model and what it was fitted on."""

    options: FitOptions
    plan: Plan
    """How it was fitted."""
    backbone: Backbone
    size: tuple[int, int]
    pool: int
    shapes: list[FeatureShape]
    subspaces: list[list[Subspace]]
    """Of each layer, one for each part of its partition."""
    fusion: Fusion
    expectation: Expectation | None
    calibration: Calibration
    photos: list[Path]
    """The photos that were used in this run, in order."""
    state: State
    """What is kept of all photos, earlier ones as well."""
    held_out_scores: Floats
    """S of each photo whose features were kept, under a subspace fitted without its fold, (n,); of
    tiles the largest."""
    skipped: dict[Path, str]
    """Files that were left out, with the reason."""
    earlier: list[Saved] = field(default_factory=list)
    """The models that this one goes on from."""

    @property
    def photo_of_score(self) -> Groups:
        """Which of `photos` each held-out score is of; -1 for photos of earlier models."""
        return np.unique(self.state.photos) if self.options.view.tile else self.state.photos

    @property
    def groups(self) -> Groups:
        """Scene of each photo whose features were kept, (n,)."""
        assert self.state.groups is not None
        if not self.options.view.tile:
            return self.state.groups
        return self.state.groups[np.unique(self.state.photos, return_index=True)[1]]

    @property
    def scenes(self) -> int:
        """Distinct scenes among the photos."""
        return self.state.scenes

    @property
    def partitions(self) -> list[Partition]:
        """How the features of each layer are divided into vectors."""
        return [partition_of(self.options.subspace, shape) for shape in self.shapes]

    @property
    def identity(self) -> Identity:
        """What another fit must have in common to be merged with this one."""
        return Identity.of(self.backbone, self.pool, self.shapes, self.options)

    def module(self, io: str = "uint8", lift_to: tuple[int, int] | None = None) -> FRE:
        """Return the deployable module; see `FRE` for its input and outputs."""
        return FRE(self.extractor(io), self.head(lift_to)).eval()

    def extractor(self, io: str = "uint8") -> FeatureExtractor:
        """Return the part up to the features."""
        return FeatureExtractor(
            self.backbone, self.pool, io, self.options.pool_overlap or ()
        ).eval()

    def head(self, lift_to: tuple[int, int] | None = None) -> Head:
        """Return the part from the features on."""
        return Head(
            self.subspaces,
            self.partitions,
            self.fusion,
            self.expectation,
            self.options.score,
            self.calibration.image,
            self.calibration.pixel,
            lift_to,
        ).eval()

    def gather(self, trunk: Trunk) -> State:
        """What is kept of the same photos as another trunk sees them."""
        reader = make_reader(self.photos, self.size, self.options)
        if self.plan.scratch is None or self.plan.streams:
            if not self.plan.streams:
                kept = 4 * reader.expected * sum(shape.dimension for shape in self.shapes)
                check_memory(
                    kept + 8 * reader.expected**2,
                    f"keeping the features of {reader.expected} photos as another precision gives "
                    "them",
                    "keep features on disk with --scratch DIR",
                )
            gatherer = make_gatherer(self.plan, self.options, self.shapes, reader.expected, None)
            rows = gather(trunk, reader, gatherer)
            return _of_photos(gatherer.state(), rows, self.options)
        # The files stay readable after their names have gone.
        self.plan.scratch.mkdir(parents=True, exist_ok=True)  # an export clears it
        with tempfile.TemporaryDirectory(dir=self.plan.scratch) as folder:
            keep = Keep(self.shapes, len(self.photos), Path(folder))
            gather(trunk, reader, keep)
            return keep.state()

    def refit(self, state: State) -> "Fit":
        """The same fit on other features, of the same photos or of a part of them.

        Subspaces, fusion and thresholds are learned anew; scenes stay as they were found, where
        every photo was kept.
        """
        if state.complete and state.groups is None:
            state = replace(state, groups=self.state.groups)
        strategy = make_strategy(self.plan.method, self.options)
        learned = learn(state, self.shapes, self.photos, self.options, strategy)
        return replace(self, **learned._asdict())

    def recalibrate(self, state: State) -> "Fit":
        """The same fit, its thresholds for the features that a rounded backbone gives.

        Subspaces learned anew would take up the noise of the rounding, and find fewer defects
        (``benchmarks/NOTES.md``). Where the features that were fitted are no longer kept, there is
        no other way.
        """
        if not (self.state.complete and state.complete):
            return self.refit(state)
        known = Learned(*(getattr(self, name) for name in Learned._fields))
        strategy = make_strategy(self.plan.method, self.options)
        learned = recalibrate(known, state, self.shapes, self.options, strategy)
        return replace(self, **learned._asdict())


def fit(
    images: str | Path | Sequence[Path],
    options: FitOptions | None = None,
    team: Team = ALONE,
) -> Fit:
    """Fit FRE on photos of good parts.

    Parameters
    ----------
    images
        A folder of good photos, an MVTec-layout category (its ``train/good`` is used), or a list
        of files.
    options
        What to fit; default: `FitOptions()`.
    team
        The processes that share the work (see `fre_edge.team.join`), this one being rank 0; all
        others call `fre_edge.distributed.contribute`.

    Returns
    -------
    Fit
        Bit for bit the same on one machine for the same photos and options.

    Raises
    ------
    DataError
        When there are fewer than 2 usable photos, or they do not vary.
    UsageError
        When an option is out of range or names what does not exist.
    MemoryLimitError, OutputError
        When the features do not fit into memory, or the work files onto the disk.
    TeamError
        When another process of the team fails, is killed, or is silent for too long.
    """
    return _fit(images, options or FitOptions(), [], team)


def update(
    models: Sequence[str | Path],
    images: str | Path | Sequence[Path] | None = None,
    options: FitOptions | None = None,
    team: Team = ALONE,
) -> Fit:
    """Go on from the fits of exported models, without their photos.

    Parameters
    ----------
    models
        Directories that ``fre-export`` wrote. Several are merged.
    images
        New photos of good parts, as for `fit`; None: the models are merged, no more.
    options
        What to fit; default: as the first model. Backbone, layers, size and pooling must be the
        models'.

    Returns
    -------
    Fit
        As long as the models hold the features of all their photos, what `fit` would make of old
        and new ones together; else as `fre_edge.state` tells.

    Raises
    ------
    DataError
        When the models differ in backbone, weights, layers, size or pooling, or from ``options``;
        names the field.
    ArtifactError
        When a model directory is damaged.
    UsageError, MemoryLimitError, OutputError
        As for `fit`.
    """
    if not models:
        raise UsageError("no model to update; give at least one")
    earlier = [Saved.read(Path(model)) for model in models]
    for saved in earlier[1:]:
        earlier[0].identity.check(saved.identity, earlier[0].name, saved.name)
    if images is None and len(models) == 1:
        raise UsageError(f"{models[0]}: nothing to add to it; give IMAGES, or a second model")
    return _fit(images, options or earlier[0].options, earlier, team)


def _fit(
    images: str | Path | Sequence[Path] | None,
    options: FitOptions,
    earlier: list[Saved],
    team: Team = ALONE,
) -> Fit:
    for saved in earlier:  # before another backbone is asked for this one's layers
        asked = replace(saved.identity, backbone=backbone_spec(options.backbone).name)
        saved.identity.check(asked, saved.name, "this fit")
    job = prepare(images, options)
    options, shapes = job.options, job.shapes
    if options.weights == "random":
        log.warning("random weights: this model measures speed and detects nothing")
    for saved in earlier:
        saved.identity.check(job.identity, saved.name, "this fit")
    states = [saved.state for saved in earlier]
    if options.view.tile:
        plan = _tiled_plan(job, earlier, team.local)
    else:
        plan = _plan(options, len(job.paths), shapes, states, team.local)
    log.info("method %s: %s", plan.method, plan.reason)
    if options.subspace != "whole" and plan.streams:
        instead = "fit on all photos again" if earlier else "--method pca with --scratch DIR"
        raise UsageError(
            f"subspace {options.subspace!r} needs the features of all photos, method incremental "
            f"keeps none ({plan.reason}); take --subspace whole, or {instead}"
        )

    photos: list[Path] = []
    skipped: dict[Path, str] = {}
    if job.paths:
        rows, reader, gathered = gather_all(job, plan, team)
        photos = list(dict.fromkeys(rows))
        _check_photos(photos, reader, options, at_least=1 if earlier else 2)
        skipped = reader.skipped
        new = _of_photos(gathered, rows, options)
        if earlier and new.complete and options.groups not in ("auto", "none"):
            # A table knows the new photos; the earlier ones keep the scenes that they have.
            groups = GroupTable.read(Path(options.groups)).assign(photos)
            new = replace(new, groups=groups, scenes=len(np.unique(groups)))
        states.append(new)
    rank = Rank(options.variance, options.components)
    state = merge_states(states, rank)
    if state.complete and options.groups in ("auto", "none"):
        state = replace(state, groups=None)
    strategy = make_strategy(plan.method, options)
    learned = learn(state, shapes, photos, options, strategy)
    fitted = Fit(
        options=options,
        plan=plan,
        backbone=job.backbone,
        size=job.size,
        pool=job.extractor.pool,
        shapes=shapes,
        photos=photos,
        skipped=skipped,
        earlier=earlier,
        **learned._asdict(),
    )
    _warn_of_few_scenes(fitted)
    return fitted


def _of_photos(state: State, rows: list[Path], options: FitOptions) -> State:
    """The state with the photo of each row, where rows are tiles."""
    if not options.view.tile:
        return state
    number = {photo: i for i, photo in enumerate(dict.fromkeys(rows))}
    return State.of(state.kept, np.array([number[row] for row in rows], np.int64))


def _tiled_plan(job: Job, earlier: list[Saved], processes: int) -> Plan:
    """As `choose`; tiles are kept in memory, so that a photo's stay together."""
    options, tiles = job.options, job.reader(job.paths).expected
    for given, what in (
        (earlier, "a model of tiles cannot be updated or merged"),
        (options.scratch, "tiles cannot be kept in a scratch folder"),
        (options.method == "incremental", "method incremental cannot tell tiles from photos"),
    ):
        if given:
            raise UsageError(f"{what}; fit on all photos at once, in memory")
    plan = choose(options, tiles, [shape.dimension for shape in job.shapes], processes)
    if plan.streams:
        raise DataError(
            f"{tiles} tiles are too many ({plan.reason}); take larger tiles, less overlap or fewer "
            "photos"
        )
    if tiles > MANY_TILES:
        log.warning(
            "%d tiles are to be learned from: beyond %d that takes minutes, since each is compared "
            "with each. Larger tiles, less overlap or fewer photos make it faster",
            tiles,
            MANY_TILES,
        )
    return plan


def _plan(
    options: FitOptions,
    photos: int,
    shapes: Sequence[FeatureShape],
    states: list[State],
    processes: int,
) -> Plan:
    """As `choose`, where the earlier states leave a choice."""
    dimensions = [shape.dimension for shape in shapes]
    if not states or stays_complete(states, photos):
        return choose(options, photos + sum(state.count for state in states), dimensions, processes)
    if options.method in ("tied-ae", "ae"):
        raise UsageError(
            f"method {options.method} needs the features of all photos, the models hold sketches "
            "of them; take another method, or fit on the photos again"
        )
    reason = "the models hold more photos than they keep the features of"
    plan = choose(replace(options, method="incremental"), photos, dimensions, processes)
    return replace(plan, reason=reason)


def _warn_of_few_scenes(fitted: Fit) -> None:
    supported = fitted.calibration.fpr_supported
    if supported > fitted.options.fpr:
        log.warning(
            "%d scenes support a false-reject rate of %.3g at best, not %.3g; the threshold is "
            "the largest held-out score. That rate takes photos of %d different good parts",
            fitted.scenes,
            supported,
            fitted.options.fpr,
            int(np.ceil(1 / fitted.options.fpr)) - 1,
        )


def _check_photos(
    photos: list[Path], reader: PhotoReader, options: FitOptions, at_least: int
) -> None:
    skipped = [f"{path}: {reason}" for path, reason in reader.skipped.items()]
    for reason in skipped:
        log.warning("left out: %s", reason)
    if skipped and options.strict:
        raise DataError(
            f"{len(skipped)} of {len(reader.paths)} files cannot be used, and strict allows none; "
            f"the first: {skipped[0]}"
        )
    if len(photos) < at_least:
        raise DataError(
            f"{len(photos)} usable photo{'s' * (len(photos) != 1)} among {len(reader.paths)} "
            f"files, at least {at_least} different needed (30 or more to be useful)"
            + (f"; the first problem: {skipped[0]}" if skipped else "")
        )
    if reader.brightest < 16:
        log.warning(
            "no photo is brighter than %d of 255: 12-bit pixels in 16-bit files, which are divided "
            "by 256? Scale them to the full range first",
            reader.brightest,
        )
    if len(reader.sizes) > 1 and not options.view.tile:
        log.info(
            "photos have %d different sizes; all are brought to the model's", len(reader.sizes)
        )
