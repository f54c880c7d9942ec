"""One process of a team, run by `test_distributed.py` with what it needs as globals.

Does what fre-export does, up to the fit: rank 0 saves it, everybody says on stderr what went wrong.
"""

import importlib
import os
import signal
import sys
import time

import numpy as np
import torch

from fre_edge import distributed, fitting, team
from fre_runtime.errors import FreError

job: dict = globals()["job"]

sys.stderr = open(job["stderr"], "w", buffering=1)  # noqa: SIM115 - until the process ends
os.environ.update(job["environ"])
torch.set_num_threads(1)
for module, name, value in job["constants"]:
    setattr(importlib.import_module(module), name, value)


def misbehave(photos: int) -> None:
    what, when = job["fault"]
    if photos != when:
        return
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fails":
        raise team.DataError("this photo is cursed")
    job["out"].with_name(f"{what}_{os.environ['RANK']}").touch()
    if what == "hangs":
        signal.pause()
    while not job["out"].with_name("go").exists():  # "waits"
        time.sleep(0.02)


try:
    with team.join() as us:
        note = us.note
        us.note = lambda photos: (misbehave(photos), note(photos))[1]
        if us.rank:
            distributed.contribute(job["images"], job["options"], us)
        else:
            fitted = fitting.fit(job["images"], job["options"], us)
            arrays = {f"kept{i}": layer for i, layer in enumerate(fitted.state.kept)}
            for i, (subspace, *_) in enumerate(fitted.subspaces):
                arrays[f"mean{i}"] = subspace.mean
                arrays[f"components{i}"] = subspace.components
                arrays[f"captured{i}"] = np.array([subspace.captured, subspace.shortfall])
            np.savez(
                job["out"],
                photos=[path.name for path in fitted.photos],
                skipped=[f"{p.name}: {why}" for p, why in fitted.skipped.items()],
                threshold=fitted.calibration.image.value,
                count=fitted.state.count,
                sampled=fitted.state.photos,
                **arrays,
            )
except FreError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(1)
