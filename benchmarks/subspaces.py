"""What a subspace is fitted to: whole images, regions, or cells, on registered and shifted photos.

    python benchmarks/subspaces.py CATEGORY [CATEGORY ...] [--shift F] [--only NAME] [--json FILE]

Each CATEGORY is a folder in MVTec layout; the solar cells of elpv-dataset are added by themselves.
With --shift 0.2, each photo is also cropped to 80% of its sides at a random place, good ones and
defective ones alike, as by a camera that does not see the part where it was.
"""

import argparse
import tempfile
import zlib
from pathlib import Path

import numpy as np
from scoring import publish, score, show, with_solar_cells

from fre_edge import FitOptions
from fre_runtime.image import encode_image, read_image, read_mask

SUBSPACES = (("whole", 0.90), ("regions:2", 0.90), ("regions:4", 0.90), ("local", 0.90))
SUBSPACES += (("local", 0.80), ("local", 0.97))


def crop_all(category: Path, out: Path, share: float) -> Path:
    """Write the category with each photo, and its mask, cropped at a random place of its own."""
    for path in sorted(p for p in category.rglob("*") if p.is_file()):
        part = path.relative_to(category)
        mask = part.parts[0] == "ground_truth"
        picture = read_mask(path)[..., None] * np.uint8(255) if mask else read_image(path)
        # A photo and its mask have one stem and one defect, so they are cropped alike.
        key = f"{path.parent.name}/{path.stem.removesuffix('_mask')}"
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        height, width = picture.shape[:2]
        sides = round(height * (1 - share)), round(width * (1 - share))
        top, left = rng.integers(height - sides[0] + 1), rng.integers(width - sides[1] + 1)
        picture = picture[top : top + sides[0], left : left + sides[1]]
        (out / part).parent.mkdir(parents=True, exist_ok=True)
        data = encode_image(np.ascontiguousarray(np.broadcast_to(picture, (*sides, 3))), ".png")
        (out / part).with_suffix(".png").write_bytes(data)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("categories", nargs="*", type=Path)
    parser.add_argument("--shift", type=float, default=0.2, metavar="F", help="0 = not shifted")
    parser.add_argument("--only", metavar="NAME", help="data sets whose name holds this")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/subspaces.json"))
    args = parser.parse_args()
    rows: list[dict] = []
    with with_solar_cells(args.categories) as categories, tempfile.TemporaryDirectory() as folder:
        for category in categories:
            shifted = Path(folder) / f"{category.name}_shifted"
            for data in (category, shifted) if args.shift else (category,):
                if args.only and args.only not in data.name:
                    continue
                if data is shifted:
                    crop_all(category, shifted, args.shift)
                for subspace, variance in SUBSPACES:
                    options = FitOptions(subspace=subspace, variance=variance, fpr=0.05)
                    rows.append(score(data, options) | {"shift": args.shift * (data is shifted)})
                    show(rows[-1])
                    publish(args.json, rows)


if __name__ == "__main__":
    main()
