"""How long a fit takes beside one pass of the backbone over the same photos.

    python benchmarks/fitting.py CATEGORY [--images 209 470 ...] [--json FILE]

For each number of photos, in turn and several times: `fre_edge.fit`, and one pass over the same
files (read, resized, through the truncated backbone as timm and torchvision give it, its batch
normalisations not folded) by PyTorch, one photo a core as the fit does it for few photos; by
PyTorch in batches of 16 on all threads; and by OpenVINO with and without the conversion of the
backbone. The features of all of them are held against PyTorch's. Then the wall
time of ``fre-export``, from the folder to the verified model directory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from timm.models import create_feature_extractor

from fre_edge import FitOptions, fit
from fre_edge.backbones import Backbone, build_backbone
from fre_edge.extraction import OpenVinoTrunk, TorchTrunk, extract
from fre_edge.features import FeatureExtractor
from fre_edge.weights import load_weights, suit
from fre_edge.zoo import create_model
from fre_runtime.environment import environment
from fre_runtime.files import good_images
from fre_runtime.photos import PhotoReader
from fre_runtime.threads import default_threads

BATCH = 16
OPTIONS = FitOptions(fpr=0.05)


def batches(extractor: FeatureExtractor, reader: PhotoReader) -> list[np.ndarray]:
    """Features by PyTorch in batches, all threads on each."""
    torch.set_num_threads(default_threads())
    rows, batch = [], []
    with torch.inference_mode():
        for photo in reader:
            batch.append(torch.from_numpy(photo.image))
            if len(batch) == BATCH:
                rows.append(extractor(torch.stack(batch)))
                batch = []
        if batch:
            rows.append(extractor(torch.stack(batch)))
    layers = zip(*rows, strict=True)
    return [torch.cat(layer).flatten(1).numpy() for layer in layers]


def plain_backbone() -> Backbone:
    """The default backbone with a trunk that nobody made faster."""
    backbone = build_backbone(OPTIONS.backbone)
    model = create_model(backbone.spec, 0)
    trunk = create_feature_extractor(model, list(backbone.layers)).eval().requires_grad_(False)
    state, info = load_weights(backbone.spec, "auto")
    assert state is not None
    model.load_state_dict(
        suit(state, model.state_dict(), trunk.state_dict().keys(), info), strict=False
    )
    return replace(backbone, trunk=trunk)


def measure(paths: list[Path], runs: int) -> dict:
    backbone = plain_backbone()
    extractor = FeatureExtractor(backbone, 2, overlap=backbone.spec.overlap).eval()
    shapes = extractor.shapes(256, 256)
    found: dict[str, list[np.ndarray]] = {}
    converted = OpenVinoTrunk.convert(extractor, (256, 256))

    def reader() -> PhotoReader:
        return PhotoReader(paths, 256, 256)

    def run(name: str, work: Callable[[], list[np.ndarray]]) -> float:
        start = time.perf_counter()
        found[name] = work()
        return time.perf_counter() - start

    def convert_and_extract() -> list[np.ndarray]:
        return extract(OpenVinoTrunk.convert(extractor, (256, 256)), reader(), shapes)[1]

    passes = {
        "torch, a photo a core": lambda: extract(TorchTrunk(extractor), reader(), shapes)[1],
        f"torch, batches of {BATCH}": lambda: batches(extractor, reader()),
        "openvino, conversion included": convert_and_extract,
        "openvino": lambda: extract(converted, reader(), shapes)[1],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ["fit", *passes]}
    for _ in range(runs):
        start = time.perf_counter()
        fit(paths, OPTIONS)
        seconds["fit"].append(time.perf_counter() - start)
        for name, work in passes.items():
            seconds[name].append(run(name, work))
    reference = found["torch, a photo a core"]
    row = {"images": len(paths), "seconds": seconds, "fit_over": {}, "feature_difference": {}}
    print(f"{len(paths)} photos: fit {statistics.median(seconds['fit']):.2f} s")
    for name in passes:
        ratios = [a / b for a, b in zip(seconds["fit"], seconds[name], strict=True)]
        difference = max(
            float(np.abs(a - b).max() / np.abs(b).max())
            for a, b in zip(found[name], reference, strict=True)
        )
        row["fit_over"][name] = {
            "median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)
        }  # fmt: skip
        row["feature_difference"][name] = difference
        print(
            f"  pass by {name:<30} {statistics.median(seconds[name]):6.2f} s, fit over it "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}), features "
            f"within {difference:.1e}",
            flush=True,
        )
    return row


def export_seconds(paths: list[Path], precision: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for path in paths:
            (photos / path.name).symlink_to(path.resolve())
        command = [Path(sys.executable).parent / "fre-export", photos, "--out"]
        command += [Path(folder) / "model", "--quiet", "--precision", precision]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("category", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[209, 10**6])
    parser.add_argument("--runs", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/fitting.json"))
    args = parser.parse_args()
    paths = sorted(good_images(args.category))
    report: dict = {"environment": environment(), "rows": [], "export_seconds": {}}
    for count in args.images:
        report["rows"].append(measure(paths[:count], args.runs))
    for precision in ("fp32", "auto"):
        times = [export_seconds(paths[:209], precision) for _ in range(args.runs)]
        report["export_seconds"][precision] = times
        print(
            f"fre-export of 209 photos, --precision {precision}: {statistics.median(times):.1f} s"
        )
    args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
