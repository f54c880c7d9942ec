"""``fit.safetensors``: the fitted subspaces as numbers, and all that a later fit goes on from."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fre_edge.backbones import Backbone
from fre_edge.features import FeatureShape
from fre_edge.options import FitOptions
from fre_edge.state import State
from fre_edge.strategies.base import Rank
from fre_edge.tensors import Tensors, read_tensors, write_tensors
from fre_runtime.errors import ArtifactError, DataError
from fre_runtime.geometry import View
from fre_runtime.image import RESIZE_RULE, Image, read_image
from fre_runtime.model_dir import GOLDEN_IMAGE, open_model_dir

if TYPE_CHECKING:
    from fre_edge.fitting import Fit

FILE = "fit.safetensors"


@dataclass(frozen=True)
class Identity:
    """What features depend on: equal, or they cannot be compared."""

    backbone: str
    weights_sha256: str | None
    """For random weights, their seed."""
    layers: list[str]
    size: list[int]
    pool: int
    pool_overlap: list[str]
    shapes: list[list[int]]
    resize: str
    view: dict[str, Any]
    """Which part of a photo was seen; see `fre_runtime.geometry.View`."""

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        pool: int,
        shapes: list[FeatureShape],
        options: FitOptions,
    ) -> "Identity":
        """The identity of features extracted so."""
        random = backbone.weights.source == "random"
        return cls(
            backbone.spec.name,
            f"random, seed {options.seed}" if random else backbone.weights.sha256,
            list(backbone.layers),
            list(backbone.size),
            pool,
            list(options.pool_overlap or ()),
            [list(shape) for shape in shapes],
            RESIZE_RULE,
            dataclasses.asdict(options.view),
        )

    def fields(self) -> dict[str, Any]:
        """Name and value of each field."""
        return dataclasses.asdict(self)

    def check(self, other: "Identity", ours: str, theirs: str) -> None:
        """Raise `DataError`, naming the first field in which they differ."""
        others = other.fields()
        for name, value in self.fields().items():
            if value != others[name]:
                raise DataError(
                    f"{ours} and {theirs} differ in {name} ({value} and {others[name]}), so their "
                    "features cannot be compared; fit on the photos of both again"
                )


@dataclass(frozen=True)
class Saved:
    """What an exported model tells a later fit."""

    name: str
    identity: Identity
    options: FitOptions
    state: State
    golden: Image
    """A real photo at model size, uint8 (H, W, 3)."""

    @classmethod
    def read(cls, model: Path) -> "Saved":
        """Read it from a model directory; raises `ArtifactError` where that is damaged."""
        path = open_model_dir(model).path
        tensors, notes = read_tensors(path / FILE)
        golden = read_image(path / GOLDEN_IMAGE)
        try:
            return cls.parse(model.name, tensors, notes, golden)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path / FILE}: holds no state that can be updated ({error!r}); export the model "
                "again from its photos"
            ) from error

    @classmethod
    def parse(cls, name: str, tensors: Tensors, notes: Mapping[str, str], golden: Image) -> "Saved":
        """From what `save_fit` wrote."""
        identity = Identity(**json.loads(notes["identity"]))
        saved: dict[str, Any] = json.loads(notes["options"])
        lists = {name: tuple(value) for name, value in saved.items() if isinstance(value, list)}
        saved["view"] = View(**saved["view"])
        saved.setdefault("max_components", {})  # before there were limits
        state = State.from_tensors(tensors, identity.layers)
        return cls(name, identity, FitOptions(**(saved | lists)), state, golden)


def save_fit(fit: "Fit", path: Path) -> None:
    """Write mu, W and the spectrum of each layer, the held-out scores, and the state."""
    rank = Rank(fit.options.variance, fit.options.components)
    state = fit.state.bounded(rank)
    tensors = state.tensors(fit.backbone.layers)
    tensors["held_out_scores"] = fit.held_out_scores
    for name, subspaces in zip(fit.backbone.layers, fit.subspaces, strict=True):
        for part, subspace in enumerate(subspaces):
            key = f"{name}.{part}" if len(subspaces) > 1 else name
            tensors[f"{key}.mean"] = subspace.mean
            tensors[f"{key}.components"] = subspace.components
            tensors[f"{key}.spectrum"] = subspace.spectrum
            if subspace.decoder is not None and subspace.bias is not None:
                tensors |= {f"{key}.decoder": subspace.decoder, f"{key}.bias": subspace.bias}
    options = dataclasses.replace(fit.options, scratch=None)
    notes = {
        "identity": json.dumps(fit.identity.fields()),
        "options": json.dumps(dataclasses.asdict(options)),
    }
    write_tensors(path, tensors, notes)
