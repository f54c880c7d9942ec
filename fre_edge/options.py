"""What can be chosen about a fit; light to import, so that the command line shares it."""

from dataclasses import dataclass, field

from fre_runtime.errors import UsageError
from fre_runtime.geometry import View
from fre_runtime.image import MAX_PIXELS

SCORES = ("p3", "p2", "sum", "max")
"""Ways to pool the map to a score; see `fre_edge.scores.image_scores`."""

METHODS = ("auto", "pca", "incremental", "randomized", "tied-ae", "ae")
"""Ways to find the subspace; see `fre_edge.strategies`."""

SUBSPACES = ("whole", "local", "regions", "regions:R")
"""What a subspace is fitted to; see `fre_edge.partition`."""


def regions_of(subspace: str) -> int:
    """Windows a side that the option asks for; ``regions`` alone means 2.

    Raises
    ------
    UsageError
        When it does not exist.
    """
    kind, _, count = subspace.partition(":")
    if subspace in ("whole", "local"):
        return 1
    if kind != "regions" or not (subspace == kind or (count.isdecimal() and int(count) > 1)):
        raise UsageError(
            f"subspace {subspace!r} does not exist; choose {', '.join(SUBSPACES)} (R from 2)"
        )
    return int(count or 2)


@dataclass(frozen=True)
class FitOptions:
    """What to fit; the defaults were chosen by measurement (see ``benchmarks/``)."""

    backbone: str = "efficientnet_lite0"
    layers: tuple[str, ...] = ()
    """Graph nodes to tap; empty = the backbone's own default."""
    weights: str = "auto"
    """``auto``, ``random`` (speed work only), or the path of a state dict."""
    size: tuple[int, int] | None = None
    """Height and width of the model's input; None = the backbone's own default."""
    pool: int | None = None
    """Side of the average-pooling window; None = the backbone's own default."""
    pool_overlap: tuple[str, ...] | None = None
    """Layers whose pooling windows reach half of `pool` further to each side; None = the
    backbone's own default."""
    variance: float = 0.9
    """Fraction of the variance that the subspace holds, in (0, 1]."""
    components: int | None = None
    """Number of components; overrides `variance`."""
    max_components: dict[str, int] | None = None
    """Layers whose ``whole`` subspace has no more components than this, whatever `variance` asks
    for; None = the backbone's own default, empty = no limit."""
    subspace: str = "whole"
    """What is a vector: ``whole`` images, ``local`` cells, or ``regions`` (of R x R:
    ``regions:R``)."""
    method: str = "auto"
    """How the subspace is found: one of `METHODS`; ``auto`` goes by number, size and memory."""
    warm_start: bool = False
    """Autoencoders begin at the PCA instead of at random."""
    scratch: str | None = None
    """Folder for features that shall not lie in memory, and for what a fit that was stopped goes
    on from."""
    score: str = "p3"
    """How the map becomes the image score: one of `SCORES`."""
    relative: bool = True
    """Take errors relative to what is expected of a good photo (`fre_edge.expectation`)."""
    groups: str = "auto"
    """``auto``, ``none``, or the path of a CSV file with the columns file,group."""
    fpr: float = 0.01
    """Target false-reject rate, at least 1e-6 and below 1."""
    view: View = field(default_factory=View)
    """Which part of the photos is looked at, and how; of tiles one model is learned for all."""
    max_pixels: int = MAX_PIXELS
    """Larger photos are left out, from their header."""
    seed: int = 0
    strict: bool = False
    """Refuse unusable files instead of leaving them out."""

    def check(self) -> None:
        """Raise `UsageError` for a value out of range."""
        if self.score not in SCORES:
            raise UsageError(f"score {self.score!r} does not exist; choose {', '.join(SCORES)}")
        if self.method not in METHODS:
            raise UsageError(f"method {self.method!r} does not exist; choose {', '.join(METHODS)}")
        regions_of(self.subspace)
        if self.warm_start and self.method not in ("tied-ae", "ae"):
            raise UsageError(f"warm_start is for tied-ae and ae, the method is {self.method}")
        if not 0 < self.variance <= 1:
            raise UsageError(f"variance must be above 0 and at most 1, got {self.variance}")
        if not 1e-6 <= self.fpr < 1:
            raise UsageError(f"fpr must lie between 0.000001 and 1, got {self.fpr}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must lie in 0..2^63 - 1, got {self.seed}")
        if self.max_pixels < 1:
            raise UsageError(f"max_pixels must be at least 1, got {self.max_pixels}")
        self.view.check()
        if len(set(self.layers)) != len(self.layers):
            raise UsageError(f"layers must differ, got {', '.join(self.layers)}")
        if self.components is not None and self.components < 1:
            raise UsageError(f"components must be at least 1, got {self.components}")
        for layer, most in (self.max_components or {}).items():
            if most < 1:
                raise UsageError(f"max_components of {layer} must be at least 1, got {most}")
        if self.max_components and self.subspace != "whole":
            raise UsageError(
                f"max_components is for whole subspaces, the subspace is {self.subspace}; leave it "
                "out or take less variance"
            )
        if self.max_components and self.components is not None:
            raise UsageError("give components or max_components, not both")
        if self.pool is not None and self.pool < 1:
            raise UsageError(f"pool must be at least 1, got {self.pool}")
        if self.size is not None and not all(32 <= side <= 4096 for side in self.size):
            raise UsageError(f"size must lie in 32..4096 pixels, got {self.size}")
