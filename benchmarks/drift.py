"""How soon the drift watch gives alarm when the light, the focus or the position of a camera moves.

    python benchmarks/drift.py CATEGORY [CATEGORY ...] [--streams 100] [--json FILE]

Each CATEGORY is a folder in MVTec layout; the solar cells of elpv-dataset are added by themselves.
A model is exported from each at a target false-reject rate of 1% (or what its scenes support), and
the good test photos, which it has not seen, are scored as they are and after each drift. Streams
are drawn from these scores at random, with the category's own defects among them: first
undisturbed, then drifted. Counted are alarms before the drift (false ones), photos from its
beginning to the alarm, and how many good photos were rejected until then and would be from then on.
Long streams without drift tell the rate of false alarms.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from elpv import lay_out

from fre_edge import FitOptions
from fre_export import export
from fre_runtime import Detector, read_image
from fre_runtime.drift import DriftOptions, DriftWatch
from fre_runtime.environment import environment
from fre_runtime.files import labelled_images
from fre_runtime.image import Image
from fre_runtime.progress import track

BEFORE, AFTER = 500, 1000
"""Photos of a stream before and after the drift begins."""
LONG = 20_000
"""Photos of a stream without drift."""
DEFECTS = 0.02
"""Share of defective photos in each stream."""


def brightness(factor: float) -> Callable[[Image], Image]:
    return lambda image: np.clip(image * factor, 0, 255).round().astype(np.uint8)


def blur(share: float) -> Callable[[Image], Image]:
    """Gaussian, its sigma as a share of the width."""
    return lambda image: cv2.GaussianBlur(image, (0, 0), max(0.1, share * image.shape[1]))


def shift(share: float) -> Callable[[Image], Image]:
    """To the right and down, as a share of the width; the edge is repeated."""

    def moved(image: Image) -> Image:
        by = round(share * image.shape[1])
        matrix = np.float32([[1, 0, by], [0, 1, by]])
        size = (image.shape[1], image.shape[0])
        return cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)

    return moved


DRIFTS: dict[str, Callable[[Image], Image]] = {
    "brightness 0.7": brightness(0.7),
    "brightness 0.85": brightness(0.85),
    "brightness 1.15": brightness(1.15),
    "brightness 1.3": brightness(1.3),
    "blur 0.3%": blur(0.003),
    "blur 0.6%": blur(0.006),
    "blur 1.2%": blur(0.012),
    "shift 1%": shift(0.01),
    "shift 2%": shift(0.02),
    "shift 4%": shift(0.04),
}


def measure(category: Path, work: Path, streams: int, long_streams: int) -> dict:
    model = export(category, work / category.name, FitOptions())
    detector = Detector(model)
    photos = labelled_images(category)
    good = [read_image(photo.path) for photo in photos if not photo.is_defective]
    bad = scores(detector, (read_image(p.path) for p in photos if p.is_defective), "defective")
    clean = scores(detector, good, "good")
    calibration = model.variant("fp32").calibration
    options = DriftOptions()
    long = [
        first_alarms(DriftWatch(calibration, options), stream(clean, bad, LONG, seed))
        for seed in track(range(long_streams), long_streams, "without drift")
    ]
    rows = []
    for name, change in DRIFTS.items():
        drifted = scores(detector, (change(image) for image in good), name)
        rows.append(
            {"drift": name, **one_drift(calibration, options, clean, drifted, bad, streams)}
        )
    return {
        "data": category.name,
        "good": len(good),
        "scenes_calibrated": calibration.scenes,
        "fpr": calibration.fpr_supported,
        "options": asdict(options),
        "false_reject_rate": float((clean > calibration.image.value).mean()),
        "without_drift": {
            "scores": LONG * long_streams,
            "false_alarms": sum(long),
        },
        "drifts": rows,
    }


def scores(detector: Detector, images: object, label: str) -> np.ndarray:
    images = list(images)
    results = detector.stream(images)
    return np.array([result.raw_score for result in track(results, len(images), label)])


def stream(good: np.ndarray, bad: np.ndarray, count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(count) < DEFECTS, rng.choice(bad, count), rng.choice(good, count))


def first_alarms(watch: DriftWatch, raw: np.ndarray) -> int:
    """Alarms in a stream, the watch reset after each."""
    alarms = 0
    for score in raw:
        if watch.update(score).drifting:
            alarms += 1
            watch.reset()
    return alarms


def one_drift(calibration, options, clean, drifted, bad, streams: int) -> dict:
    tau = calibration.image.value
    delays, false_alarms, rejected = [], 0, []
    for seed in range(streams):
        watch = DriftWatch(calibration, options)
        false_alarms += first_alarms(watch, stream(clean, bad, BEFORE, 2 * seed))
        after = stream(drifted, bad, AFTER, 2 * seed + 1)
        alarm = next((n for n, score in enumerate(after, 1) if watch.update(score).drifting), None)
        if alarm is not None:
            delays.append(alarm)
            taken = after[:alarm]
            rejected.append(int((taken[~np.isin(taken, bad)] > tau).sum()))
    return {
        "median_score_ratio": float(np.median(drifted) / np.median(clean)),
        "false_reject_rate": float((drifted > tau).mean()),
        "streams": streams,
        "found": len(delays),
        "false_alarms": false_alarms,
        "delay_median": float(np.median(delays)) if delays else None,
        "delay_p90": float(np.quantile(delays, 0.9)) if delays else None,
        "false_rejects_before_alarm": float(np.mean(rejected)) if rejected else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("categories", nargs="*", type=Path)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--long-streams", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/drift.json"))
    args = parser.parse_args()
    report = {"environment": environment(), "defects": DEFECTS, "results": []}
    with tempfile.TemporaryDirectory() as folder:
        cells = Path(folder) / "elpv_mono"
        lay_out(cells)
        for category in [*args.categories, cells]:
            work = Path(folder) / "models"
            report["results"].append(measure(category, work, args.streams, args.long_streams))
    args.json.write_text(json.dumps(report, indent=1) + "\n")
    for result in report["results"]:
        print(result["data"], result["false_reject_rate"], result["without_drift"])
        for row in result["drifts"]:
            print("  ", "  ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
