"""Scoring an archive of any size on a Ray cluster: resumable, one file of results for each block.

The photos are taken in blocks. A worker scores a block and writes its results to a file of its own,
which appears whole or not at all; nothing else travels through the cluster, so that memory does not
grow with the archive beyond the list of its paths. Whatever stopped a run, the next one goes on
with the blocks that have no file, or a damaged one. One run at a time works in a folder.
"""

import contextlib
import hashlib
import importlib
import json
import logging
import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_runtime.detector import Detector
from fre_runtime.errors import DataError, FreError, MissingDependencyError, OutputError, UsageError
from fre_runtime.folder_lock import LOCK, alone_in
from fre_runtime.image import MAX_PIXELS
from fre_runtime.model_dir import MANIFEST, open_model_dir
from fre_runtime.progress import track
from fre_runtime.records import record, scored
from fre_runtime.sources import expand, frames
from fre_runtime.threads import default_threads

PLAN = "archive.json"
"""Says what the blocks of a folder are blocks of."""
BLOCK = 256
"""Photos in a block."""
LOCAL = "local"
"""Address of a cluster that is started for one run, on this machine."""
STATES = ("good", "anomalous", "invalid")
AGAIN = "What is finished stays; run the same again to go on"
LOCAL_STORE = 2**27
"""Bytes of the object store of such a cluster; what goes through it is small."""


class ClusterError(FreError, RuntimeError):
    """A cluster cannot be reached, or its workers fail."""


@dataclass(frozen=True)
class Plan:
    """What results belong to; the same, or they cannot be continued."""

    model: str
    """sha256 of the model's manifest."""
    engine: str
    variant: str
    threads: int
    max_pixels: int
    block: int
    sources: str
    """Number and sha256 of the files: where they are, their sizes and times of change."""


def score_archive(
    model: str | Path,
    sources: Sequence[str],
    out: str | Path,
    address: str = LOCAL,
    engine: str = "auto",
    variant: str = "fp32",
    threads: int = 1,
    max_pixels: int = MAX_PIXELS,
    block: int = BLOCK,
    *,
    quiet: bool = False,
) -> Counter[str]:
    """Score photos on a Ray cluster, one `Detector` in each worker.

    Parameters
    ----------
    model
        The directory that ``fre-export`` wrote; every machine must see it there.
    sources
        Files, folders and patterns as ``fre-run`` takes them; every machine must see them there.
    out
        Folder for ``part-000000.jsonl`` and so on, in the order of the photos, each line as
        ``fre-run --json`` writes it; every machine must see it there. What an earlier run of the
        same model and sources has finished is kept.
    address
        ``local``: a cluster on this machine alone; ``auto``, or host and port of a running one.
        A session that the caller has begun by ``ray.init`` is used as it is.
    engine, variant
        As for `Detector`.
    threads
        CPU threads of each worker; there are as many workers as the cluster has CPUs for.
    max_pixels
        Larger images are refused from their header.
    block
        Photos in a block.
    quiet
        Show no progress.

    Returns
    -------
    Counter
        How many pictures are ``good``, ``anomalous`` and ``invalid``, earlier runs included. A file
        that cannot be read is an invalid picture, and no failure.

    Raises
    ------
    UsageError
        When ``out`` holds results of another model or of other photos, be it under the same names;
        names what differs.
    ClusterError
        When the cluster cannot be reached, or its workers fail.
    MissingDependencyError
        When Ray is not installed.
    DataError, ArtifactError, OutputError
        When sources or model are missing or damaged, or results cannot be written, such as while
        another run writes there.
    """
    ray = _import_ray()
    directory = open_model_dir(model)
    paths = [os.fsencode(path) for path in expand(list(sources))]
    plan = Plan(
        hashlib.sha256((directory.path / MANIFEST).read_bytes()).hexdigest(),
        Detector(directory, engine, variant, threads).info.engine,  # proves it before the work
        variant,
        threads,
        max_pixels,
        block,
        f"{len(paths)} with sha256 {_digest(paths)}",
    )
    folder = Path(out).absolute()
    worker = {
        "model": str(directory.path.absolute()),
        "engine": plan.engine,
        "variant": variant,
        "threads": threads,
        "max_pixels": max_pixels,
        "folder": str(folder),
        "work_folder": os.getcwd(),
    }
    counts = Counter(dict.fromkeys(STATES, 0))
    rows: list[dict[str, Any]] = []
    with _alone(folder):
        _claim(folder, plan)
        for i in range(-(-len(paths) // block)):
            mine = paths[i * block : (i + 1) * block]
            if finished := _finished(_part(folder, i), len(mine)):
                counts.update(finished)
            else:
                rows.append({"number": i, "paths": bytes(1).join(mine)})
        if not rows:
            return counts
        with _Session(ray, address):
            done = _score(ray, rows, worker, threads)
            for found in done if quiet else track(done, len(rows), f"scoring blocks of {block}"):
                counts.update(found)
        parts = [_part(folder, row["number"]) for row in rows]
        if absent := [part.name for part in parts if not part.is_file()]:
            raise OutputError(
                f"{folder}: {len(absent)} of the files that the workers wrote are not there, the "
                f"first is {absent[0]}; give a folder that all machines share"
            )
    return counts


class Scorer:
    """What runs in each worker: scores a block and writes its file."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - those of `_open`
        self._settings = settings
        self._detector: Detector | None = None

    def _open(
        self,
        model: str,
        engine: str,
        variant: str,
        threads: int,
        max_pixels: int,
        folder: str,
        work_folder: str,
    ) -> Detector:
        try:
            os.chdir(work_folder)  # where relative paths begin
        except OSError as error:
            raise DataError(
                f"{work_folder}: is not there on {socket.gethostname()}; run from a folder that "
                "all machines share"
            ) from error
        self._folder = Path(folder)
        return Detector(model, engine, variant, threads, max_pixels=max_pixels)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Score the blocks of a batch, one as a rule.

        Returns how many pictures are what, and what went wrong: raised here, Ray would wrap it.
        """
        rows: list[dict[str, Any]] = []
        for number, joined in zip(batch["number"], batch["paths"], strict=True):
            paths = [Path(os.fsdecode(path)) for path in bytes(joined).split(bytes(1))]
            row = dict.fromkeys(STATES, 0) | {"error": ""}
            try:
                self._detector = self._detector or self._open(**self._settings)
                row |= self._score(self._detector, _part(self._folder, int(number)), paths)
            except FreError as error:
                row["error"] = str(error)
            rows.append(row)
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def _score(self, detector: Detector, part: Path, paths: list[Path]) -> Counter[str]:
        if not any(path.exists() for path in paths):
            raise DataError(
                f"none of the {len(paths)} files from {paths[0]} on is there on "
                f"{socket.gethostname()}; every machine must see the archive in that place"
            )
        counts: Counter[str] = Counter()
        temporary = part.with_name(f".{part.name}.{socket.gethostname()}.{os.getpid()}")
        try:
            with temporary.open("w", encoding="utf-8", errors="backslashreplace") as lines:
                for taken in frames(paths, detector.max_pixels):
                    line = record(*scored(detector, taken))
                    counts[line["state"]] += 1
                    lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                lines.flush()
                os.fsync(lines.fileno())
            os.replace(temporary, part)
        except OSError as error:
            if isinstance(error, FreError):
                raise
            why = error.strerror or error
            raise OutputError(f"{part}: cannot be written ({why})") from error
        finally:
            temporary.unlink(missing_ok=True)
        return counts


class _Session:
    """A connection to a cluster; ends only what it began."""

    def __init__(self, ray: ModuleType, address: str) -> None:
        self._ray = ray
        self._address = address
        self._ours = not ray.is_initialized()

    def __enter__(self) -> None:
        if not self._ours:
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self._address == LOCAL:
                self._ray.init(
                    address=LOCAL,
                    num_cpus=default_threads(),
                    object_store_memory=LOCAL_STORE,
                    include_dashboard=False,
                    **quiet,
                )
            else:
                _knock(self._address)
                self._ray.init(address=self._address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            why = str(error).strip().split("\n")[0]
            raise ClusterError(
                f"{self._address}: no Ray cluster can be reached there ({why}); start one with "
                "`ray start --head`, or give --ray local"
            ) from error

    def __exit__(self, *unused: object) -> None:
        if self._ours:
            self._ray.shutdown()


def _knock(address: str) -> None:
    """Raise `OSError` where nobody answers: Ray would try for minutes and end the process."""
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()


def _score(
    ray: ModuleType, rows: list[dict[str, Any]], worker: dict[str, Any], threads: int
) -> Iterator[Counter[str]]:
    """Counts of each block, as they are finished."""
    data = importlib.import_module("ray.data")
    data.DataContext.get_current().enable_progress_bars = False
    cpus = int(ray.cluster_resources().get("CPU", 0))
    workers = min(cpus // threads, len(rows))
    if workers < 1:
        raise UsageError(
            f"{threads} threads a worker, but the cluster has {cpus} CPUs; ask for fewer threads"
        )
    scored = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Scorer,
        fn_constructor_kwargs=worker,
        batch_size=1,
        num_cpus=threads,
        compute=data.ActorPoolStrategy(size=workers),
    )
    try:
        for row in scored.iter_rows():
            if row["error"]:
                raise ClusterError(f"a worker failed: {row['error']}. {AGAIN}")
            yield Counter({state: int(row[state]) for state in STATES})
    except ray.exceptions.RayError as error:
        last = str(error).strip().split("\n")[-1]
        raise ClusterError(f"the workers failed: {last}. {AGAIN}") from error


def _import_ray() -> ModuleType:
    # Nothing is reported to anyone. Errors come as exceptions; Ray's own lines on stderr are of its
    # inner affairs, all but one that says how many there may be.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; run: pip install 'fre-edge[distributed]'"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.jsonl"


def _digest(paths: list[bytes]) -> str:
    """Tell files apart by more than names: photos of other parts are often called the same."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            found = os.stat(path)
            state = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:  # it is scored as invalid later
            state = "missing"
        digest.update(os.path.abspath(path) + b"\0" + state.encode() + b"\0")
    return digest.hexdigest()


def _finished(part: Path, photos: int) -> Counter[str] | None:
    """How many pictures of a block are what; None where its file is not there, or damaged."""
    try:
        with part.open(encoding="utf-8") as lines:
            counts = Counter(json.loads(line)["state"] for line in lines)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = sum(counts.values()) >= photos  # a video gives more lines than one
    return counts if whole and counts.keys() <= set(STATES) else None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder: each takes unfinished files for those of a dead one."""
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(alone_in(folder, wait=False))
        except BlockingIOError as error:
            raise OutputError(
                f"{folder}: another run writes its results there; wait until it has ended, or "
                "choose another folder"
            ) from error
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
        yield


def _claim(folder: Path, plan: Plan) -> None:
    """Make the folder that of ``plan``, or see that it is."""
    path = folder / PLAN
    try:
        if not path.is_file():
            if any(file.name != LOCK for file in folder.iterdir()):
                raise UsageError(
                    f"{folder}: holds other files than the results of an archive; choose another "
                    "folder"
                )
            temporary = path.with_name(f".{PLAN}.{os.getpid()}")
            temporary.write_text(json.dumps(asdict(plan), indent=1) + "\n")
            os.replace(temporary, path)
            return
        for rest in folder.glob(".part-*"):  # of a worker that was killed
            rest.unlink(missing_ok=True)
        earlier = json.loads(path.read_text())
    except OSError as error:
        if isinstance(error, FreError):
            raise
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    except ValueError as error:
        if isinstance(error, FreError):
            raise
        raise UsageError(f"{path}: is damaged ({error}); choose another folder") from error
    for name, value in asdict(plan).items():
        if earlier.get(name) != value:
            raise UsageError(
                f"{folder}: holds results of another {name} ({earlier.get(name)}, now {value}"
                f"{'; are the photos others, or changed?' * (name == 'sources')}); choose another "
                "folder"
            )
