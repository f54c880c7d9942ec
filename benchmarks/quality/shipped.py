"""Quality through the commands that users type: fre-export, then fre-eval with both engines."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.quality.data import Category, mvtec_categories
from benchmarks.quality.splits import draw, given, lay_out, seen_in_training
from benchmarks.quality.summary import METRICS, Row, summarise
from fre_runtime.errors import FreError
from fre_runtime.metrics import auroc, average_precision, f1_max

FPR = "0.05"
PRECISIONS = "bf16,int8"


class CommandError(FreError, RuntimeError):
    """A command of the project failed; the message is its last line."""


def command(name: str, *arguments: str | Path) -> None:
    """Run one of the project's commands from this environment."""
    path = Path(sys.executable).parent / name
    call = [str(path), *map(str, arguments)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise CommandError(f"{name} {arguments[0]}: {said.removeprefix('error: ')}")


def evaluated(model: Path, folder: Path, *which: str) -> Row:
    """What fre-eval says, as its JSON."""
    with TemporaryDirectory() as work:
        out = Path(work) / "eval.json"
        command("fre-eval", model, folder, *which, "--json", out, "--quiet")
        found: Row = json.loads(out.read_text())
        return found


def rows_of(
    name: str, seed: int, folder: Path, options: Sequence[str] = (), pixels_by_kind: bool = False
) -> list[Row]:
    """Export a model of ``folder`` and evaluate each variant on each engine.

    Raises
    ------
    CommandError
        When a command fails, or the engines disagree.
    """
    with TemporaryDirectory() as work:
        model = Path(work) / "model"
        command("fre-export", folder, "--out", model, "--fpr", FPR, "--quiet", *options)
        card = json.loads((model / "model.json").read_text())
        rows = []
        for variant, built in card["variants"].items():
            found = {
                engine: evaluated(model, folder, "--engine", engine, "--variant", variant)
                for engine in built["files"]
            }
            agreement = agreement_of(list(found.values()))
            # Each may differ from PyTorch by the tolerance that the export proved.
            most = 2 * built["parity"]["score_tolerance"]
            if agreement["raw_score"] > most:
                raise CommandError(
                    f"{name}, seed {seed}, {variant}: raw scores of the engines differ by "
                    f"{agreement['raw_score']:.1e}, {most:g} is the most"
                )
            kinds = kinds_of(next(iter(found.values()))["scores"])
            if pixels_by_kind and variant == "fp32":
                add_pixels(kinds, model, folder)
            rows += [
                {
                    "data": name,
                    "seed": seed,
                    "engine": engine,
                    "variant": variant,
                    "photos": card["training"]["images"],
                    "scenes": card["training"]["scenes"],
                    "parity": built["parity"]["score_error"][engine],
                    "engines_differ": agreement,
                    **{key: figures[key] for key in (*METRICS, "n_good", "n_defective")},
                    "by_kind": kinds,
                }
                for engine, figures in found.items()
            ]
        return rows


def agreement_of(evaluations: list[Row]) -> Row:
    """Largest relative difference of raw scores, and how many labels differ, between engines."""
    first, *others = (evaluation["scores"] for evaluation in evaluations)
    pairs = [(first[name], other[name]) for other in others for name in first]
    return {
        "raw_score": max((abs(b["raw"] / a["raw"] - 1) for a, b in pairs if a["raw"]), default=0.0),
        "labels": sum(a["state"] != b["state"] for a, b in pairs),
    }


def kinds_of(scores: dict[str, Row]) -> dict[str, Row]:
    """Image figures of each kind of defect against all good photos; empty for a single kind."""
    entries = list(scores.values())
    kinds = sorted({entry["kind"] for entry in entries if entry["label"]})
    found = {}
    for kind in kinds if len(kinds) > 1 else []:
        chosen = [entry for entry in entries if entry["kind"] == kind or not entry["label"]]
        raw = np.array([entry["raw"] for entry in chosen], np.float64)
        label = np.array([entry["label"] for entry in chosen], bool)
        found[kind] = {
            "image_auroc": auroc(raw, label),
            "image_ap": average_precision(raw, label),
            "image_f1_max": f1_max(raw, label),
            "n": int(label.sum()),
        }
    return found


def add_pixels(kinds: dict[str, Row], model: Path, folder: Path) -> None:
    """Add pixel figures to those of `kinds_of`: each kind by itself beside the good photos."""
    for kind, figures in kinds.items():
        with TemporaryDirectory() as work:
            alone = lay_out(given(folder), folder, Path(work), {kind})
            found = evaluated(model, alone, "--engine", "openvino")
        figures |= {key: found[key] for key in ("pixel_auroc", "aupro")}


def measure(categories: list[Category], seeds: int, *, variants: bool = True) -> Row:
    """All categories over ``seeds`` draws of their splits; what else JSON and tables need."""
    rows: list[Row] = []
    for category in categories:
        for seed in range(seeds):
            options = ("--precision", PRECISIONS) if variants and seed == 0 else ()
            with TemporaryDirectory() as work:
                split = draw(category.split, seed, category.group_of)
                folder = lay_out(split, category.folder, Path(work))
                drawn = rows_of(category.name, seed, folder, options, pixels_by_kind=seed == 0)
            rows += drawn
            say(drawn[0])
    return {
        "fpr": float(FPR),
        "seeds": seeds,
        "data": [describe(category) for category in categories],
        "results": rows,
        "summary": summarise(rows),
        "leaks": leaks(categories),
    }


def describe(category: Category) -> Row:
    """What a table must say of a data set."""
    return {
        "data": category.name,
        "train": len(category.split.train),
        "test_good": len(category.split.test),
        "groups": category.groups,
    }


def leaks(categories: list[Category]) -> list[Row]:
    """Where one data set has the good photos of another whose groups are known: what it leaks."""
    found = []
    for honest in categories:
        if honest.group_of is None:
            continue
        group_of = {path.name: group for path, group in honest.group_of.items()}
        for other in categories:
            names = {path.name for path in other.split.good}
            if other.group_of is None and names == group_of.keys():
                by_path = {path: group_of[path.name] for path in other.split.good}
                seen = seen_in_training(other.split, by_path)
                found.append(
                    {
                        "data": other.name,
                        "honest": honest.name,
                        "seen_in_training": seen,
                        "test_good": len(other.split.test),
                    }
                )
    return found


def say(row: Row) -> None:
    """Say one row on stdout as soon as it is there."""
    figures = "  ".join(f"{key} {row[key]:.4f}" for key in METRICS if row[key] is not None)
    print(
        f"{row['data']} seed {row['seed']} {row['engine']} {row['variant']}  {figures}", flush=True
    )


def measure_mvtec(root: Path) -> Row:
    """All categories below ``root``; those that fail or are missing are named, and left out."""
    folders, missing = mvtec_categories(root)
    rows, failed = [], {}
    for name, folder in folders.items():
        try:
            found = rows_of(name, 0, folder)
        except CommandError as error:
            failed[name] = str(error).replace(f"{root}/", "")
            print(f"{name}: {failed[name]}", flush=True)
            continue
        rows += found
        say(found[0])
    return {"fpr": float(FPR), "missing": missing, "failed": failed, "results": rows}
