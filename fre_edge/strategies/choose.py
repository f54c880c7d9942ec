"""Which strategy, and where the features lie: by their number, their size, and free memory."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from fre_edge.grouping import FOLDS
from fre_edge.memory import SHARE, check_disk, check_memory, free_memory, in_gb
from fre_edge.options import FitOptions, regions_of
from fre_edge.state import SAMPLE_BYTES
from fre_edge.strategies.base import TILE, Rank, Strategy
from fre_edge.strategies.incremental import Incremental, sketch_rows
from fre_edge.strategies.pca import LARGE, Pca
from fre_edge.strategies.randomized import PLANNED, Randomized, sketch_bytes
from fre_runtime.errors import OutputError

MOST_EXACT = 20_000
"""Photos up to which ``auto`` takes the exact PCA; its time grows with their cube."""


@dataclass(frozen=True)
class Plan:
    """How a fit will go."""

    method: str
    """One of `fre_edge.options.METHODS`, never ``auto``."""
    scratch: Path | None
    """Folder for the features and for what a stopped fit goes on from; None = memory only."""
    reason: str

    @property
    def streams(self) -> bool:
        """Whether features are sketched as they come, and never kept."""
        return self.method == "incremental"


def make_strategy(method: str, options: FitOptions) -> Strategy:
    """Make the strategy called ``method``."""
    if method == "pca":
        return Pca()
    if method == "incremental":
        return Incremental()
    if method == "randomized":
        return Randomized(options.seed)
    from fre_edge.strategies.autoencoder import Autoencoder  # torch's optimisers take a while

    return Autoencoder(tied=method == "tied-ae", warm=options.warm_start, seed=options.seed)


def choose(options: FitOptions, photos: int, dimensions: list[int], processes: int = 1) -> Plan:
    """Plan a fit of up to ``photos`` photos with so many features in each layer.

    Of several ``processes`` on one machine each gathers its part of the photos, then one fits.

    Raises
    ------
    MemoryLimitError, OutputError
        When what was asked for does not fit into memory, or onto the disk of the scratch folder.
    """
    scratch = None if options.scratch is None else Path(options.scratch)
    method, reason = options.method, "as asked"
    if method == "auto":
        method, reason = _automatic(options, photos, dimensions, processes)
    plan = Plan(method, scratch, reason)
    if scratch is not None:
        _check_folder(scratch, 0 if plan.streams else 4 * photos * sum(dimensions))
    if plan.streams:
        instead = "give fewer --components"
    elif options.view.tile:
        instead = "take larger tiles, less overlap or fewer photos"
    elif scratch is None:
        instead = "keep the features on disk with --scratch DIR, or take --method incremental"
    else:
        instead = "take --method incremental, whose memory does not grow with the photos"
    needed = memory_needed(method, options, photos, dimensions, processes)
    check_memory(
        needed,
        f"--method {method} on {photos} {'tiles' if options.view.tile else 'photos'}",
        instead,
    )
    return plan


def memory_needed(
    method: str, options: FitOptions, photos: int, dimensions: list[int], processes: int = 1
) -> int:
    """Bytes that a fit takes at most, beside the backbone and the libraries; see `choose`."""
    rank = Rank(options.variance, options.components)
    widest = max(dimensions)
    if method == "incremental":
        rows = sketch_rows(rank)
        # waiting and sketched rows of each fold, one cut at work, then all folds side by side
        kept = 4 * rows * (2 * FOLDS + 1) * sum(dimensions) + SAMPLE_BYTES
        return processes * kept + 4 * rows * (FOLDS + 4) * widest
    features = 4 * photos * sum(dimensions) if options.scratch is None else 0
    features += features * (processes - 1) // processes  # until the fitting one has them all
    regions = regions_of(options.subspace) ** 2
    if regions > 1:  # each has its own copy of its features, and its own Gram matrix
        features += 8 * photos * widest // regions + 8 * photos**2 * regions
    k = options.components or min(photos, widest) // 2
    if options.view.tile and options.groups == "auto" and method != "pca":
        features += 16 * photos**2  # scenes are told apart by all tiles at once
    if method == "randomized":
        size = options.components or min(PLANNED, k)
        return features + sketch_bytes(size, widest) + 4 * sum(dimensions) * k
    gram = 8 * photos**2 * (6 if photos < LARGE else 4) + 12 * photos * TILE
    weights = 4 * k * sum(dimensions)
    if method == "pca":
        return features + gram + weights
    return features + weights * (5 if method == "tied-ae" else 9) + min(gram, 48 * LARGE**2)


def _automatic(
    options: FitOptions, photos: int, dimensions: list[int], processes: int
) -> tuple[str, str]:
    needed = memory_needed("pca", options, photos, dimensions, processes)
    free = free_memory()
    what = f"the exact PCA of {photos} photos with {sum(dimensions)} features each"
    if photos > MOST_EXACT:
        return "incremental", f"{what} would take long; it is for {MOST_EXACT} at most"
    if free is not None and needed > SHARE * free:
        return "incremental", f"{what} takes {in_gb(needed)}, {in_gb(free)} are free"
    return "pca", f"{what} takes {in_gb(needed)}" + (f" of {in_gb(free)}" if free else "")


def _check_folder(scratch: Path, needed: int) -> None:
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch):
            pass
    except OSError as error:
        raise OutputError(f"{scratch}: cannot be written ({error.strerror or error})") from error
    there = sum(path.stat().st_size for path in scratch.glob("layer_*.f32"))
    check_disk(scratch, needed - there, "keeping the features")
