"""fre-info: what a model directory holds."""

import argparse
import dataclasses
from pathlib import Path

from fre_runtime.card import Card
from fre_runtime.commands.common import out, write_json
from fre_runtime.model_dir import open_model_dir


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line of fre-info."""
    parser = argparse.ArgumentParser(
        prog="fre-info", description="Check a model directory and show what it holds."
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory that fre-export wrote")
    parser.add_argument("--json", metavar="FILE", help="write the card as JSON; - for stdout")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Run fre-info."""
    card = open_model_dir(args.model).card
    if args.json:
        write_json(args.json, dataclasses.asdict(card))
    if args.json != "-":
        for line in describe(card):
            out(line)
    return 0


def describe(card: Card) -> list[str]:
    """The card in a few readable lines."""
    graph, training = card.graph, card.training
    layers = ", ".join(
        f"{layer.name} ({layer.channels} x {layer.height} x {layer.width}, {layer.rank}"
        + (
            f", weights {layer.map_weight:.3g} on the map, {layer.score_weight:.3g} on the score)"
            if len(card.layers) > 1
            else ")"
        )
        for layer in card.layers
    )
    lines = [
        f"{card.name}, written {card.created}; every file matches its sha256",
        f"  input      {graph.input_name}: {graph.io}, {graph.height} x {graph.width} RGB",
        f"  view       {card.view.describe()}",
        f"  map        {graph.map_height} x {graph.map_width} ({graph.map_size}), "
        f"score by {graph.score}",
        f"  backbone   {card.backbone.name}, weights {card.backbone.weights} "
        f"({card.backbone.weights_licence}), {card.backbone.pooling}",
        f"  layers     {layers}",
        f"  fitted on  {training.photos}",
        f"  method     {training.fit}",
    ]
    for name, variant in card.variants.items():
        calibration = variant.calibration
        worst = max(variant.parity.score_error.values())
        lines.append(
            f"  {name:<10} thresholds image {calibration.image.value:.4g}, pixel "
            f"{calibration.pixel.value:.4g} at a false-reject rate of "
            f"{calibration.fpr_supported:.3g}; "
            f"engines agree to {worst:.1e} on {variant.parity.images} images"
        )
        if not calibration.folds:  # fre-calibrate, not the export
            lines.append(
                f"             calibrated {calibration.date} on {calibration.photos} "
                f"{calibration.source} ({calibration.scenes} scenes)"
            )
        if variant.time_ratio:
            times = ", ".join(f"{ratio:.2f} ({e})" for e, ratio in variant.time_ratio.items())
            lines.append(f"             time over fp32's where it was exported: {times}")
    return lines
