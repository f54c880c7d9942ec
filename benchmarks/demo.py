"""The whole job on real photos of solar cells: `make demo`.

Lays the photos out, then runs the same commands that a user would type: fre-export, fre-eval and
fre-bench with both engines, fre-run on a dozen cells; ends with a table and a contact sheet.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from elpv import lay_out

from fre_runtime import read_image
from fre_runtime.engines import ENGINES
from fre_runtime.image import encode_image

COLUMNS, ROWS = 6, 2
FPR = "0.05"


def command(*arguments: str | Path | int) -> None:
    """Run one of the project's commands from this environment, showing what is typed."""
    name, *rest = (str(argument) for argument in arguments)
    print(f"\n$ {name} {' '.join(rest)}", flush=True)
    subprocess.run([str(Path(sys.executable).parent / name), *rest], check=True)


def pick(folder: Path, count: int) -> list[Path]:
    """``count`` photos, evenly spread over the sorted folder."""
    photos = sorted(folder.iterdir())
    return [photos[i] for i in np.linspace(0, len(photos) - 1, count).astype(int)]


def contact_sheet(pictures: list[Path], titles: list[str]) -> np.ndarray:
    """Lay the pictures out in a grid, each under its title."""
    tiles = []
    for path, title in zip(pictures, titles, strict=True):
        picture = read_image(path)
        head = np.full((28, picture.shape[1], 3), 255, np.uint8)
        cv2.putText(head, title, (6, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (60,) * 3, 1, cv2.LINE_AA)
        tile = np.vstack([head, picture])
        tiles.append(cv2.copyMakeBorder(tile, 6, 6, 6, 6, cv2.BORDER_CONSTANT, value=(255,) * 3))
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return np.vstack(rows)


def main() -> None:
    root = Path(sys.argv[1])
    shutil.rmtree(root, ignore_errors=True)
    data, model, pictures = root / "data", root / "model", root / "pictures"
    counts = lay_out(data)
    print(f"photos of solar cells in {data}: {counts}")
    start = time.monotonic()
    command("fre-export", data, "--out", model, "--fpr", FPR)
    seconds = time.monotonic() - start
    for engine in ENGINES:
        figures, report = root / f"eval-{engine}.json", root / f"report-{engine}.html"
        command(
            "fre-eval", model, data, "--engine", engine, "--json", figures, "--report", report
        )  # fmt: skip
        bench = root / f"bench-{engine}.json"  # few frames: a demo need not be exact
        command("fre-bench", model, "--engine", engine, "--max-seconds", 5, "--json", bench)
    half = COLUMNS * ROWS // 2
    chosen = pick(data / "test" / "good", half) + pick(data / "test" / "defective", half)
    command("fre-run", model, *chosen, "--save", pictures)
    saved = [pictures / path.parent.name / path.name for path in chosen]
    titles = [f"{path.parent.name} {path.stem}" for path in chosen]
    gallery = root / "gallery.png"
    gallery.write_bytes(encode_image(contact_sheet(saved, titles), ".png"))
    summary(root, seconds)


def summary(root: Path, seconds: float) -> None:
    """Print the closing table from the JSON twins."""
    print(f"\nfit, export and proof of parity: {seconds:.1f} s")
    print("engine        image AUROC  detected  false rejects   FPS graph  frame  file")
    for engine in ENGINES:
        quality = json.loads((root / f"eval-{engine}.json").read_text())
        rows = json.loads((root / f"bench-{engine}.json").read_text())["results"]
        fps = {row["scope"]: row["fps"] for row in rows}
        print(
            f"{engine:<14}{quality['image_auroc']:>11.4f}{quality['detection_rate']:>10.1%}"
            f"{quality['false_reject_rate']:>15.1%}{fps['graph']:>12.0f}{fps['frame']:>7.0f}"
            f"{fps['file']:>6.0f}"
        )
    print(f"\npictures: {root / 'gallery.png'}\nnext, with `.venv/bin` on your PATH:")
    print("  fre-export FOLDER_OF_GOOD_PHOTOS --out my_model")
    print("  fre-run my_model PHOTO --save pictures")
    print(f"  fre-info {root / 'model'}")


if __name__ == "__main__":
    main()
