"""Quality of the defaults, through the commands that users type.

    python benchmarks/quality.py CATEGORY [CATEGORY ...] [--json FILE]

Each CATEGORY is a folder in MVTec layout; the solar cells of elpv-dataset are added by themselves.
For each: fre-export at a target false-reject rate of 5%, with automatic groups and, beside it,
with none; then fre-eval with both engines, and for the precision variants as well (those that
fre-export leaves out, because they fail their gate, are missing from the table).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from elpv import lay_out

from fre_runtime.environment import environment

FPR = "0.05"
FIGURES = (
    "image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "aupro", "false_reject_rate",
    "detection_rate", "n_good", "n_defective",
)  # fmt: skip


def command(name: str, *arguments: str | Path) -> None:
    path = Path(sys.executable).parent / name
    subprocess.run([path, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def measure(category: Path, groups: str, work: Path) -> list[dict]:
    model = work / f"{category.name}-{groups}"
    precision = "bf16,int8" if groups == "auto" else "fp32"
    options = ("--fpr", FPR, "--groups", groups, "--precision", precision, "--quiet")
    command("fre-export", category, "--out", model, *options)
    card = json.loads((model / "model.json").read_text())
    rows = []
    sides = [(name, engine) for name, one in card["variants"].items() for engine in one["files"]]
    for variant, engine in sides:
        out = work / "eval.json"
        which = ("--engine", engine, "--variant", variant)
        command("fre-eval", model, category, *which, "--json", out, "--quiet")
        figures = json.loads(out.read_text())
        parity = card["variants"][variant]["parity"]
        rows.append(
            {
                "data": category.name,
                "groups": groups,
                "engine": engine,
                "variant": variant,
                "photos": card["training"]["images"],
                "scenes": card["training"]["scenes"],
                "parity": parity["score_error"][engine],
                **{key: figures[key] for key in FIGURES},
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("categories", nargs="*", type=Path)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/quality.json"))
    args = parser.parse_args()
    report = {"environment": environment(), "fpr": float(FPR), "results": []}
    with tempfile.TemporaryDirectory() as folder:
        cells = Path(folder) / "elpv_mono"
        lay_out(cells)
        for category in [*args.categories, cells]:
            for groups in ("auto", "none"):
                report["results"] += measure(category, groups, Path(folder))
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    for row in report["results"]:
        print("  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
