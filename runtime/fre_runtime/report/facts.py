"""The model card as rows of a table, for every report."""

from dataclasses import dataclass

from fre_runtime.card import Card, Variant


def card_rows(card: Card) -> list[tuple[str, str]]:
    """What the model is: label and value."""
    graph, backbone, training = card.graph, card.backbone, card.training
    layers = [
        f"{layer.name}: {layer.channels} x {layer.height} x {layer.width}, {layer.rank}"
        for layer in card.layers
    ]
    return [
        ("model", card.name),
        ("written", card.created),
        ("backbone", f"{backbone.name}, {backbone.pooling}"),
        ("weights", f"{backbone.weights} ({backbone.weights_licence})"),
        ("weights, sha256", backbone.weights_sha256 or "none"),
        *(("layer", layer) for layer in layers),
        ("input", f"{graph.height} x {graph.width} {graph.colour}, {graph.io}, {graph.resize}"),
        ("view", card.view.describe()),
        ("map", f"{graph.map_height} x {graph.map_width}; score by {graph.score}"),
        ("fitted on", training.photos),
        ("method", training.fit),
        ("versions", ", ".join(f"{name} {version}" for name, version in card.versions.items())),
    ]


@dataclass(frozen=True)
class VariantRow:
    """One precision of the model: thresholds and proof, as text."""

    name: str
    image_threshold: str
    pixel_threshold: str
    fpr: str
    set_on: str
    """The photos that gave the thresholds, and when."""
    parity: str
    """Largest relative difference of the raw score from PyTorch's, by engine."""
    proved_on: str


def variant_rows(card: Card) -> list[VariantRow]:
    """Each precision of the model."""
    return [_variant_row(name, variant) for name, variant in card.variants.items()]


def _variant_row(name: str, variant: Variant) -> VariantRow:
    calibration, parity = variant.calibration, variant.parity
    asked = (
        f" ({calibration.fpr:.3g} was asked for)"
        if calibration.fpr_supported > calibration.fpr
        else ""
    )
    return VariantRow(
        name,
        f"{calibration.image.value:.4g}",
        f"{calibration.pixel.value:.4g}",
        f"{calibration.fpr_supported:.3g}{asked}",
        f"{calibration.photos} {calibration.source} of {calibration.scenes} scenes, "
        f"{calibration.date}",
        ", ".join(f"{engine} {error:.1e}" for engine, error in parity.score_error.items()),
        f"{parity.images} {parity.source}",
    )
