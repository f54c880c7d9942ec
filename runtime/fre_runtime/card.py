"""The model card: what ``model.json`` of a model directory says, typed and checked."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from fre_runtime.calibration import Calibration
from fre_runtime.errors import ArtifactError, UsageError
from fre_runtime.geometry import View
from fre_runtime.typed import Builder

SCHEMA = 2
"""Version of the card's layout; a runtime refuses cards of another one."""

OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
"""Names of the graph's outputs, in their order."""


@dataclass(frozen=True)
class Graph:
    """What goes into the graph and what comes out of it."""

    io: str
    """``uint8``: `image`, uint8 (N, H, W, 3), RGB, 0..255; ``float``: `input`, float32
    (N, 3, H, W), RGB, 0..1."""
    height: int
    width: int
    map_height: int
    map_width: int
    map_size: str
    """``native``: the map on the features' own grid; ``input``: lifted to H x W in the graph."""
    score: str
    """How the map becomes the image score: ``p3``, ``p2``, ``sum`` or ``max``."""
    resize: str
    """Name of the resize rule; see `fre_runtime.image`."""
    colour: str = "RGB"

    @property
    def input_name(self) -> str:
        """Name of the graph's input."""
        return "image" if self.io == "uint8" else "input"

    @property
    def input_dtype(self) -> str:
        """Name of the input's numpy dtype."""
        return "uint8" if self.io == "uint8" else "float32"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one image as the graph takes it, without the batch axis."""
        if self.io == "uint8":
            return self.height, self.width, 3
        return 3, self.height, self.width


@dataclass(frozen=True)
class Backbone:
    """The frozen network whose features are reconstructed."""

    name: str
    layers: list[str]
    pool: int
    """Side of the average-pooling window over each tapped layer; 1 = none."""
    pool_overlap: list[str]
    """Layers whose windows reach half as far again to each side."""
    weights: str
    """Where the weights came from; ``random`` is for speed work only."""
    weights_sha256: str | None
    weights_licence: str

    @property
    def pooling(self) -> str:
        """How the tapped layers are pooled, for people."""
        wide = f", {' and '.join(self.pool_overlap)} overlapping" if self.pool_overlap else ""
        return f"pooled {self.pool} x {self.pool}{wide}"


@dataclass(frozen=True)
class Layer:
    """The subspace of good features of one tapped layer."""

    name: str
    channels: int
    height: int
    width: int
    components: int
    """k, the rank of the subspace; with ``regions``, of all of them together."""
    variance: float
    """Fraction of the training features' variance that the k components hold."""
    shortfall: float
    """What `variance` may lack at most of the best possible k components; 0 = exact."""
    map_weight: float
    """Factor on this layer's map before fusion."""
    score_weight: float
    """Factor on this layer's score before fusion."""

    @property
    def rank(self) -> str:
        """How many components, and what they are worth, for people."""
        short = f", {self.shortfall:.1%} below the best k at most" if self.shortfall else ""
        return f"k={self.components}, {self.variance:.1%} of the variance{short}"


@dataclass(frozen=True)
class Training:
    """What the subspace was fitted on, and how."""

    method: str
    """``pca``, ``incremental``, ``randomized``, ``tied-ae`` or ``ae``."""
    subspace: str
    """What a vector is: ``whole`` features of an image, ``regions:R`` (R x R windows, each with a
    subspace of its own), or ``local`` (cells, one subspace for all)."""
    updated: list[str]
    """Names of the models that it goes on from; empty = fitted on photos alone."""
    images: int
    """Photos in all, those of earlier models as well."""
    scenes: int
    """Distinct scenes among the images: near-copies count once."""
    relative: bool
    """Whether errors are relative to those expected of a good photo."""
    grouping: str
    """``auto``, ``none``, or the name of the file that gave the groups."""
    skipped: list[str]
    """Files left out, each with the reason."""
    seed: int

    @property
    def photos(self) -> str:
        """What was fitted on, for people."""
        earlier = f", going on from {', '.join(self.updated)}" if self.updated else ""
        skipped = f", {len(self.skipped)} files left out" if self.skipped else ""
        return (
            f"{self.images} photos of {self.scenes} scenes (groups {self.grouping})"
            f"{earlier}{skipped}"
        )

    @property
    def fit(self) -> str:
        """How it was fitted, for people."""
        errors = "relative to those expected" if self.relative else "as they are"
        return f"{self.method}, subspace {self.subspace}, errors {errors}, seed {self.seed}"


@dataclass(frozen=True)
class Parity:
    """The certificate: how far the engines lie from PyTorch on real images."""

    images: int
    source: str
    """Which images these were."""
    score_error: dict[str, float]
    """Largest relative difference of the raw score, by engine."""
    map_error: dict[str, float]
    """Largest difference of the anomaly map over its largest value, by engine."""
    labels_equal: bool
    """On every image whose score does not lie within the tolerance of the threshold."""
    score_tolerance: float
    map_tolerance: float


@dataclass(frozen=True)
class Accuracy:
    """What a precision variant is worth beside fp32."""

    rank_correlation: float
    """Spearman's, of both variants' held-out scores of the training photos."""
    images: int
    """Labelled photos of the test folder; 0 where there are none."""
    image_auroc: float | None
    image_auroc_fp32: float | None
    false_reject_rate: float | None
    false_reject_rate_fp32: float | None
    detection_rate: float | None
    detection_rate_fp32: float | None


@dataclass(frozen=True)
class Variant:
    """One precision of the model, with its own files, thresholds and proof."""

    precision: str
    """What the engines must execute: ``f32``, ``bf16`` or ``int8``."""
    files: dict[str, str]
    """Path below the model directory, by engine."""
    calibration: Calibration
    parity: Parity
    accuracy: Accuracy | None
    """None for fp32 itself."""
    time_ratio: dict[str, float]
    """Time of one image over that of fp32 on the exporting machine, by engine; empty for fp32."""


@dataclass(frozen=True)
class Card:
    """Everything that a program or a person must know about a model directory."""

    name: str
    created: str
    """ISO 8601, UTC."""
    graph: Graph
    view: View
    """Which part of a photo goes into the graph, and how; see `fre_runtime.geometry`."""
    backbone: Backbone
    layers: list[Layer]
    training: Training
    variants: dict[str, Variant]
    versions: dict[str, str]
    schema: int = field(default=SCHEMA)

    def to_json(self) -> str:
        """Serialise, human-readable."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_card(path: Path) -> Card:
    """Read and check ``model.json``.

    Raises
    ------
    ArtifactError
        When the file is not JSON, is of another schema, or a field is missing or mistyped.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: cannot be read as JSON ({error})") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(
            f"{path}: schema {schema!r}, this version reads {SCHEMA}; export the model again"
        )
    card = Builder(_refuse, complete=True).build(Card, data, str(path))
    try:
        card.view.check()
    except UsageError as error:
        raise ArtifactError(f"{path}: view: {error}") from error
    if card.view.regions and not card.view.size:
        raise _refuse(f"{path}: view: does not say on photos of which size its regions are drawn")
    return card


def _refuse(what: str) -> ArtifactError:
    return ArtifactError(f"{what}; export the model again")
