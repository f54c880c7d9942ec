"""One, two and three layers, and the rule for the default tap; image and pixel metrics.

    python benchmarks/layers.py CATEGORY [CATEGORY ...] [--backbone NAME ...] [--json FILE]

Each CATEGORY is a folder in MVTec layout; the solar cells of elpv-dataset are added by themselves.
Backbones are those with embedded weights; their stages have the same names.
"""

import argparse
from pathlib import Path

from scoring import publish, score, show, with_solar_cells

from fre_edge import FitOptions

# The ends of the stages at stride 8, 16 and 32 are blocks.2, blocks.4 and blocks.5.
LAYERS = (
    ("blocks.2",), ("blocks.3",), ("blocks.4",), ("blocks.5.2",), ("blocks.5",),
    ("blocks.2", "blocks.4"), ("blocks.4", "blocks.5"), ("blocks.3", "blocks.5.2"),
    ("blocks.2", "blocks.3", "blocks.4"), ("blocks.2", "blocks.4", "blocks.5"),
    ("blocks.3", "blocks.4", "blocks.5.2"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("categories", nargs="*", type=Path)
    parser.add_argument("--backbone", nargs="+", default=["efficientnet_lite0"])
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/layers.json"))
    args = parser.parse_args()
    rows: list[dict] = []
    with with_solar_cells(args.categories) as categories:
        for backbone in args.backbone:
            for category in categories:
                for layers in LAYERS:
                    options = FitOptions(backbone=backbone, layers=layers, fpr=0.05)
                    rows.append(score(category, options))
                    show(rows[-1])
                    publish(args.json, rows)


if __name__ == "__main__":
    main()
