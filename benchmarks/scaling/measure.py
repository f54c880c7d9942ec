"""One measurement in a process of its own: seconds, and the peak of its memory."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

METHODS = {
    "pca": "pca",
    "pca, features on disk": "pca",
    "incremental": "incremental",
    "randomized": "randomized",
}
"""Routes, and the method of each."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A fit to measure."""

    sweep: str
    route: str
    rows: int
    dimension: int
    components: int


def in_fresh_process(case: Case) -> dict[str, Any]:
    """Measure ``case``; a failure becomes the row's ``failed``."""
    command = [sys.executable, "-m", "benchmarks.scaling.measure"]
    command.append(json.dumps(dataclasses.asdict(case)))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    row = dataclasses.asdict(case)
    if done.returncode:
        return row | {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return row | json.loads(done.stdout.splitlines()[-1])


def measure(case: Case) -> dict[str, Any]:
    """Gather and fit as `fre_edge.fit` does after the backbone; features are made as they come."""
    from benchmarks.scaling.features import BLOCK, Synthetic
    from fre_edge.features import FeatureShape
    from fre_edge.gathering import Gatherer, Keep, Stream
    from fre_edge.learning import learn
    from fre_edge.options import FitOptions
    from fre_edge.strategies.base import Rank
    from fre_edge.strategies.choose import make_strategy

    method = METHODS[case.route]
    options = FitOptions(layers=("synthetic",), method=method, components=case.components)
    shapes = [FeatureShape(case.dimension // 16, 4, 4)]
    source = Synthetic(case.dimension)
    next(source.blocks(BLOCK))  # what making them takes is there before
    before = peak_mib()
    made = 0.0
    photos = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("FRE_SCRATCH")) as folder:
        scratch = Path(folder) if "disk" in case.route else None
        start = time.perf_counter()
        rank = Rank(options.variance, options.components)
        gatherer: Gatherer = (
            Stream(shapes, rank, options.groups, options.seed)
            if method == "incremental"
            else Keep(shapes, case.rows, scratch)
        )
        blocks = source.blocks(case.rows)
        while True:
            since = time.perf_counter()
            block = next(blocks, None)
            made += time.perf_counter() - since
            if block is None:
                break
            for row in block:
                photos.append(Path(str(len(photos))))
                gatherer.add(photos[-1], [row])
        gathered = time.perf_counter()
        learned = learn(gatherer.state(), shapes, photos, options, make_strategy(method, options))
        end = time.perf_counter()
    ((subspace,),) = learned.subspaces
    return {
        "seconds": end - start - made,
        "gather_seconds": gathered - start - made,
        "learn_seconds": end - gathered,
        "making_seconds": made,
        "before_mib": before,
        "peak_mib": peak_mib(),
        "captured": source.captured(subspace.components),
        "best": source.best(case.components),
        "bound": subspace.shortfall,
    }


def peak_mib() -> float:
    """Most resident memory of this process so far, in MiB.

    VmHWM, since what getrusage tells may be that of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


if __name__ == "__main__":
    print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
