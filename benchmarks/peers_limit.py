"""How much faster than a peer even the bare backbone would be, at our layers.

    python benchmarks/peers_limit.py [--build build/peers] [--seconds 8] [--json FILE]

For each of our models that ``peers/run.py`` has made: `Detector` with map and mask, as the peers'
calls are timed, over the bare truncated backbone at the same layers (a raw OpenVINO request), in
turn. A peer's ratio times this one is what a detector would reach that costs nothing beside its
backbone.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
from bare import bare_onnx
from limits import measure_afresh, openvino_request
from peers.comparisons import PEERS

from fre_edge.backbones import build_backbone
from fre_runtime import Detector
from fre_runtime.environment import environment
from fre_runtime.latency import Budget

ROOT = Path(__file__).parents[1]
SIZE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/peers")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each model")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks/results/peers-limit.json")
    args = parser.parse_args()
    image = cv2.imread(str(args.build / "photos/00000.png"), cv2.IMREAD_COLOR_RGB)
    image = np.asarray(image, np.uint8)
    floats = np.random.default_rng(0).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    budget = Budget(args.seconds, frames=200, cap=4 * args.seconds)
    over_bare = {}
    for ours in {ours.name: ours for peer in PEERS for ours in peer.against}.values():
        model = args.build / "models" / f"ours-{ours.name}" / "model"
        path = args.build / f"bare-{ours.name}.onnx"
        # The weights' values do not matter to the time.
        weights = "auto" if ours.backbone == "efficientnet_lite0" else "random"
        backbone = build_backbone(ours.backbone, ours.layers, weights)
        onnx.save_model(bare_onnx(backbone, (SIZE, SIZE)), path)

        def detect(model=model):
            detector = Detector(model, "openvino")
            return lambda: detector(image).mask

        def bare(path=path):
            return openvino_request(path, "fp32", floats)

        ratio = measure_afresh(detect, bare, budget).ratio
        over_bare[ours.name] = ratio
        print(f"{ours.name}: {ratio['median']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})")
    args.json.write_text(
        json.dumps({"environment": environment(), "over_bare": over_bare}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
