"""Where the time of a model goes: the engines' own profilers, node by node.

    python benchmarks/nodes.py [--runs 400] [--json FILE]

The models of `limits.py`, in each engine and precision, with the time of their nodes added up by
part: what is done to the image before the backbone, the backbone, the pooling and copying between
it and the head, the products with W, and the rest of the head. For the products: the bytes of W
that one image needs, and at what rate they were read. For comparison, the rate at which numpy
(OpenBLAS) multiplies a vector with a float32 matrix as large as W that is in no cache. In ONNX
Runtime also what comes after the backbone (products and head) by itself, again and again, without
the profiler: what it would cost if the backbone did not drive it out of the caches.

A profiler slows what it looks at, the smallest nodes most: the parts say what to work on,
`limits.py` says what it costs.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import openvino
from elpv import lay_out
from limits import CASES, whole_models

from fre_edge import fit
from fre_edge.fitting import Fit
from fre_runtime.engines.base import Settings
from fre_runtime.engines.openvino import config
from fre_runtime.environment import environment
from fre_runtime.image import read_image, resize
from fre_runtime.threads import default_threads

PARTS = ("image", "backbone", "between", "products with W", "rest of the head")
CONVOLUTIONS = ("Convolution", "GroupConvolution", "Conv", "FusedConv", "QLinearConv")
BETWEEN = ("AvgPool", "AveragePool", "Reorder", "ReorderOutput")
"""What lies behind the first convolution and is none: pooling, and copies to another layout."""
WAY_TO_W = ("Transpose", "Mul", "Cast")
Node = tuple[str, str]
"""Name and type."""
Times = dict[Node, list[float]]
"""Microseconds of each run, by node, in the order of execution."""


def openvino_nodes(path: Path, variant: str, batch: np.ndarray, runs: int) -> Times:
    """What OpenVINO says of each node that it executes."""
    options = config(Settings(default_threads(), {"fp32": "f32"}.get(variant, variant)))
    model = openvino.Core().read_model(path)
    request = openvino.compile_model(
        model, "CPU", options | {"PERF_COUNT": True}
    ).create_infer_request()
    found = defaultdict(list)
    for _ in range(runs):
        request.infer([batch])
        for node in request.profiling_info:
            if node.status == openvino.ProfilingInfo.Status.EXECUTED:
                found[node.node_name, node.node_type].append(node.real_time.total_seconds() * 1e6)
    return found


def onnxruntime_nodes(path: Path, batch: np.ndarray, runs: int, folder: Path) -> Times:
    """The same of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: batch}
    for _ in range(runs):
        session.run(None, feed)
    found = defaultdict(list)
    suffix = "_kernel_time"
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event["cat"] == "Node" and event["name"].endswith(suffix):
            name = event["name"].removesuffix(suffix)
            found[name, event["args"]["op_name"]].append(float(event["dur"]))
    return found


def head_alone_us(path: Path, batch: np.ndarray, runs: int, folder: Path) -> float:
    """Microseconds of all that follows the features in ONNX Runtime, with everything in caches."""
    names = [value.name for value in onnx.load(path).graph.output]
    features = [f"features_{i}" for i in range(_layers(path))]
    trunk, head = folder / "trunk.onnx", folder / "head.onnx"
    onnx.utils.extract_model(path, trunk, ["image"], features)
    onnx.utils.extract_model(path, head, features, names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = default_threads()
    options.log_severity_level = 3
    first, then = (
        onnxruntime.InferenceSession(part, options, providers=["CPUExecutionProvider"])
        for part in (trunk, head)
    )
    feed = dict(zip(features, first.run(None, {"image": batch}), strict=True))
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        then.run(None, feed)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def _layers(path: Path) -> int:
    made = (name for node in onnx.load(path).graph.node for name in node.output)
    return sum(name.startswith("features_") for name in made)


class Product(NamedTuple):
    """A product with the 8-bit W."""

    elements: int
    """Of W."""
    whole: bool
    """ONNX Runtime does it in whole numbers, and keeps the 8 bits; else it unpacks them."""


def products_with_w(path: Path) -> dict[str, Product]:
    """The products with the 8-bit W, by name."""
    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    eight_bit = {t.name: math.prod(t.dims) for t in graph.initializer if t.data_type == t.INT8}

    def elements(name: str) -> int:
        if name in eight_bit:
            return eight_bit[name]
        maker = makers.get(name)
        return elements(maker.input[0]) if maker and maker.op_type in WAY_TO_W else 0

    kinds = ("MatMul", "Gemm", "MatMulInteger")
    found = {
        node.name: Product(elements(node.input[1]), node.op_type == "MatMulInteger")
        for node in graph.node
        if node.op_type in kinds
    }
    return {name: product for name, product in found.items() if product.elements}


def by_part(nodes: Times, products: Iterable[str]) -> dict[str, dict]:
    """Microseconds (the median run's) and number of nodes of each of `PARTS`."""
    parts = {part: {"us": 0.0, "nodes": 0} for part in PARTS}
    products = {spelled for name in products for spelled in (name, f"{name}/WithoutBiases")}
    part = "image"
    for (name, kind), times in nodes.items():  # in the order of execution
        if name in products:
            found = "products with W"
        elif name.startswith(("head.", "pred_", "anomaly_map")):
            found = "rest of the head"
        elif part == "backbone" and kind in BETWEEN:
            found = "between"
        else:
            part = "backbone" if kind in CONVOLUTIONS else part
            found = part
        parts[found]["us"] += statistics.median(times)
        parts[found]["nodes"] += 1
    return parts


def cold_gb_per_s(elements: int) -> float:
    """What numpy (OpenBLAS, all cores) reads a second of a float32 matrix, in GB.

    The matrix has as many elements as W and is in no cache, as W is not after the backbone.
    """
    matrix = np.ones((elements // 1024, 1024), np.float32)
    vector = np.ones(1024, np.float32)
    other = np.ones(2**24, np.float32)
    times = []
    for _ in range(100):
        other += 1
        start = time.perf_counter()
        matrix @ vector
        times.append(time.perf_counter() - start)
    return matrix.nbytes / statistics.median(times) / 1e9


def rows_of(name: str, fitted: Fit, folder: Path, runs: int) -> list[dict]:
    """One row for each engine and precision of a model."""
    whole = whole_models(fitted, folder)
    image = np.ascontiguousarray(resize(read_image(fitted.photos[0]), *fitted.size))[None]
    products = products_with_w(whole["onnxruntime", "fp32"])
    cold = cold_gb_per_s(max(product.elements for product in products.values()))
    rows = []
    for (engine, variant), path in whole.items():
        if engine == "openvino":
            nodes = openvino_nodes(path, variant, image, runs)
        else:
            nodes = onnxruntime_nodes(path, image, runs, folder)
        parts = by_part(nodes, products)
        alone = None if engine == "openvino" else head_alone_us(path, image, runs, folder)
        read = sum(
            product.elements * (1 if engine == "openvino" or product.whole else 4)
            for product in products.values()
        )
        rate = read / (parts["products with W"]["us"] * 1e3)
        rows.append(
            {"model": name, "engine": engine, "variant": variant, "parts": parts, "w_bytes": read}
            | {"w_gb_per_s": rate, "numpy_cold_gb_per_s": cold, "head_alone_us": alone}
        )
        told = ", ".join(f"{part} {v['us']:.0f} us ({v['nodes']})" for part, v in parts.items())
        print(f"{name} {engine} {variant}: {told}; W at {rate:.0f} GB/s", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/nodes.json"))
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        lay_out(root / "cells")
        for case in CASES[:2]:
            fitted = fit(root / "cells", case.options)
            folder = root / case.name
            folder.mkdir()
            rows += rows_of(case.name, fitted, folder, args.runs)
    args.json.write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
