"""Worker: this project's model, as ``fre-export`` writes it and `Detector` runs it."""

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from worker import Call, Config, main

FITS = 3


def prepare(config: Config, folder: Path) -> dict:
    from fre_edge import FitOptions, fit
    from fre_export import export

    options = FitOptions(
        backbone=config["backbone"],
        layers=tuple(config["layers"]),
        weights=config["weights"],
        components=config["components"],
    )
    seconds = []
    for _ in range(FITS):
        start = time.perf_counter()
        fitted = fit(config["photos"], options)
        seconds.append(time.perf_counter() - start)
    shutil.rmtree(folder / "model", ignore_errors=True)
    model = export(fitted, folder / "model")
    return {
        "fit_s": statistics.median(seconds),
        "fits_s": seconds,
        "layers": [
            {
                "name": layer.name,
                "grid": [layer.channels, layer.height, layer.width],
                "components": layer.components,
            }
            for layer in model.card.layers
        ],
        "pool": model.card.backbone.pool,
    }


def serve(config: Config, folder: Path) -> tuple[Call, dict]:
    from fre_runtime import Detector

    detector = Detector(folder / "model", "openvino", threads=config["threads"])
    info = detector.info

    def call(image: Any) -> Any:
        result = detector(image)
        return result.score, result.mask  # lifted to the photo's size, as every peer's call does

    return call, {
        "deployment": f"Detector with map and mask, OpenVINO {info.version}",
        "precision": info.precision,
        "threads": info.threads,
    }


if __name__ == "__main__":
    main(prepare, serve)
