"""The fit of real photos by 1, 2, ... processes, each with one core: what sharing them gains."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fre_runtime.threads import cores


def run(category: Path, processes: int) -> dict[str, Any]:
    """Fit with so many processes on as many cores; seconds of rank 0, with every wait in it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "benchmarks.scaling.ranks", str(category)]
    allowed = set().union(*cores()[:processes])
    done = subprocess.run(
        command,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    row = {"sweep": "processes", "processes": processes}
    if done.returncode:
        return row | {"failed": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    return row | json.loads(done.stdout.splitlines()[-1])


def main(category: Path) -> None:
    """What each process runs."""
    from benchmarks.scaling.measure import peak_mib
    from fre_edge import distributed
    from fre_edge.job import prepare
    from fre_edge.learning import learn
    from fre_edge.options import FitOptions
    from fre_edge.strategies.choose import choose, make_strategy
    from fre_edge.team import join

    options = FitOptions(fpr=0.05)
    with join() as team:
        if team.rank:
            distributed.contribute(category, options, team)
            return
        job = prepare(category, options)
        dimensions = [shape.dimension for shape in job.shapes]
        plan = choose(job.options, len(job.paths), dimensions, team.local)
        start = time.perf_counter()
        gathered = distributed.gather_all(job, plan, team)
        seconds = time.perf_counter() - start
        strategy = make_strategy(plan.method, job.options)
        start = time.perf_counter()
        learn(gathered.state, job.shapes, gathered.rows, job.options, strategy)
        report = {
            "photos": len(gathered.rows),
            "gather_seconds": seconds,
            "learn_seconds": time.perf_counter() - start,
            "peak_mib": peak_mib(),
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
