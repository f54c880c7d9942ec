"""The processes of one fit, on one machine or several, as ``torchrun`` started them.

They talk in two ways. Notes go through the key-value store that ``torchrun`` keeps: who has got how
far, who failed with what; they are looked at between two photos, so that nobody works on for a fit
that is lost. Arrays go through gloo, when both sides are ready. Nothing is pickled, and nothing is
encrypted: this is for a network that you trust.
"""

import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fre_edge.tensors import Tensors
from fre_runtime.errors import DataError, FreError, UsageError
from fre_runtime.progress import Status
from fre_runtime.threads import available_cpus, share_of_cpus

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

SILENCE = 600.0
"""Seconds without a word after which a process counts as lost; also the limit for the first."""
BEAT = 1.0
"""Seconds between two notes of a process."""
FAREWELL = 10.0
"""Seconds that a process that failed waits for the first one to say so."""


class TeamError(FreError, RuntimeError):
    """A process of the fit failed, or is gone."""


class Store(Protocol):
    """The part of a `torch.distributed.Store` that is used."""

    def set(self, key: str, value: str) -> None:
        """Set a value."""
        ...

    def get(self, key: str) -> bytes:
        """Read a value that is there."""
        ...

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""
        ...

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """Set a value where none was (``expected`` = "")."""
        ...


class Reached:
    """A store whose errors, where it cannot be reached any more, are ours."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def set(self, key: str, value: str) -> None:
        """See `Store`."""
        with _reaching():
            self._store.set(key, value)

    def get(self, key: str) -> bytes:
        """See `Store`."""
        with _reaching():
            return self._store.get(key)

    def check(self, keys: list[str]) -> bool:
        """See `Store`."""
        with _reaching():
            return self._store.check(keys)

    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """See `Store`."""
        with _reaching():
            return self._store.compare_set(key, expected, desired)


@contextlib.contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TeamError(
            "rank 0, or the torchrun that started it, cannot be reached any more "
            f"({_first_line(error)}): was it killed, or did its machine stop? {AGAIN}"
        ) from error


class Team:
    """A process among those of a fit; a context that tells the others how it ended.

    Attributes
    ----------
    rank
        Its number, from 0; 0 is the one that fits, writes and reports.
    size
        How many there are; 1 = it is alone, and nothing below does anything.
    local
        How many of them are on this machine.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local: int = 1, store: Store | None = None
    ) -> None:
        self.rank = rank
        self.size = size
        self.local = local
        self._store = store
        self._noted = 0.0
        self._cpus = available_cpus()

    @property
    def others(self) -> range:
        """The ranks beside 0."""
        return range(1, self.size)

    def shard(self, paths: Sequence[Path], rank: int) -> Sequence[Path]:
        """The share of ``rank``: neighbours, as bursts are, stay together."""
        total = len(paths)
        return paths[rank * total // self.size : (rank + 1) * total // self.size]

    def agree(self, facts: Mapping[str, object], method: str = "") -> str:
        """See that all fit the same; returns the method that rank 0 chose.

        Raises `DataError`, naming what differs from rank 0.
        """
        if self._store is None:
            return method
        told = {name: json.dumps(value) for name, value in facts.items()}
        if self.rank == 0:
            self._store.set("facts", json.dumps({"method": method, "facts": told}))
            return method
        self._wait("facts")
        first = json.loads(self._store.get("facts"))
        for name, value in told.items():
            if first["facts"].get(name) != value:
                raise DataError(
                    f"rank {self.rank} and rank 0 differ in {name} ({value} and "
                    f"{first['facts'].get(name)}); give every process the same photos and options"
                )
        return str(first["method"])

    def work(self) -> None:
        """Keep to this process's share of the cores of its machine, until `alone`."""
        if self.size > 1 and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, share_of_cpus(self.rank % self.local, self.local))

    def alone(self) -> None:
        """Take all cores again: the others have nothing more to do."""
        if self.size > 1 and hasattr(os, "sched_setaffinity"):
            from threadpoolctl import threadpool_limits  # comes with scikit-learn

            os.sched_setaffinity(0, self._cpus)
            # torchrun sets OMP_NUM_THREADS=1 for all
            threadpool_limits(len(self._cpus), user_api="blas")

    def note(self, photos: int) -> None:
        """Tell the others how far this one is; raises `TeamError` where one has failed."""
        now = time.monotonic()
        if self._store is None or now - self._noted < BEAT:
            return
        self._noted = now
        self._store.set(f"photos/{self.rank}", str(photos))
        self._check()

    def call(self, rank: int) -> None:
        """Wait until ``rank`` has what it is to send; it does so now."""
        assert self._store is not None
        self._wait(f"ready/{rank}", watch=rank)
        self._store.set(f"take/{rank}", "")

    def wait_for_call(self) -> None:
        """Say that this process has what it is to send, and wait for its turn."""
        assert self._store is not None
        self._store.set(f"ready/{self.rank}", "")
        self._wait(f"take/{self.rank}")

    def wait_for_end(self) -> None:
        """Wait until rank 0 has written what all have worked for."""
        self._wait("end")

    def send(self, tensors: Tensors) -> None:
        """Send named arrays to rank 0."""
        heads = [(name, a.dtype.str, a.shape) for name, a in tensors.items()]
        text = np.frombuffer(json.dumps(heads).encode(), np.uint8)
        self.send_array(np.array([len(text)], np.int64))
        self.send_array(text)
        for array in tensors.values():
            self.send_array(array)

    def receive(self, rank: int) -> dict[str, NDArray[Any]]:
        """Receive what ``rank`` sends by `send`."""
        size = self.receive_array(rank, (1,), "<i8")
        heads = json.loads(self.receive_array(rank, (int(size[0]),), "|u1").tobytes())
        return {name: self.receive_array(rank, shape, dtype) for name, dtype, shape in heads}

    def send_array(self, array: NDArray[Any]) -> None:
        """Send an array to rank 0, which knows its shape and dtype."""
        import torch.distributed as dist

        if array.size:
            try:
                dist.send(_tensor(np.array(array)), 0)  # a copy: torch wants to own its memory
            except RuntimeError as error:
                self._check()
                raise TeamError(f"lost contact with rank 0 ({_first_line(error)})") from error

    def receive_array(self, rank: int, shape: Sequence[int], dtype: str) -> NDArray[Any]:
        """Receive an array from ``rank``."""
        import torch.distributed as dist

        array = np.empty(shape, np.dtype(dtype))
        if array.size:
            try:
                dist.recv(_tensor(array), rank)
            except RuntimeError as error:
                self._check()
                raise TeamError(
                    f"lost contact with rank {rank} ({_first_line(error)}): was it killed, or did "
                    f"its machine stop? {AGAIN}"
                ) from error
        return array

    def _wait(self, key: str, watch: int | None = None) -> None:
        """Wait for a key; raises where somebody failed, or ``watch`` says nothing for too long."""
        assert self._store is not None
        status, said, since = Status(), b"", time.monotonic()
        try:
            while not self._store.check([key]):
                self._check()
                if watch is not None:
                    mark = f"photos/{watch}"
                    now = self._store.get(mark) if self._store.check([mark]) else b"0"
                    if now != said:
                        said, since = now, time.monotonic()
                    elif time.monotonic() - since > SILENCE:
                        raise TeamError(
                            f"rank {watch} has said nothing for {SILENCE:.0f} s, after "
                            f"{said.decode()} photos: was it killed, or did its machine stop? "
                            f"{AGAIN}"
                        )
                    if log.isEnabledFor(logging.INFO):
                        status.show(f"waiting for rank {watch}: {said.decode()} photos done")
                time.sleep(0.05)
        finally:
            status.clear()

    def _check(self) -> None:
        """Raise what somebody failed of: who leaves for that is no cause of its own."""
        assert self._store is not None
        if self._store.check(["failed"]):
            rank, message = json.loads(self._store.get("failed"))
            raise TeamError(f"rank {rank}: {message}")

    def __enter__(self) -> "Team":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tell the others; only rank 0 reports, unless it cannot."""
        if self._store is None:
            return
        told = False
        try:
            if error is not None:
                told = self._tell(self._store, error)
            elif self.rank == 0:
                self._store.set("end", "")
            self._part(self._store)
        except TeamError:  # nobody left to talk to
            pass
        if self.rank and isinstance(error, KeyboardInterrupt):
            raise SystemExit(130) from error
        if self.rank and told and isinstance(error, FreError | SystemExit):
            raise SystemExit(1) from error
        if self.rank and isinstance(error, FreError):
            raise TeamError(f"rank {self.rank}: {error}") from error

    def _part(self, store: Store) -> None:
        """Leave; where this process keeps the store, once the others have read their last note."""
        store.set(f"gone/{self.rank}", "")
        if self.rank or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return
        deadline = time.monotonic() + FAREWELL
        keys = [f"gone/{rank}" for rank in self.others]
        while not store.check(keys) and time.monotonic() < deadline:
            time.sleep(0.05)

    def _tell(self, store: Store, error: BaseException) -> bool:
        """Say that this process failed; returns whether another one reports it."""
        # The others end now, upon which torchrun would end this one before it has spoken.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ours = isinstance(error, FreError | SystemExit)
        message = str(error).removeprefix("error: ") if ours else repr(error)
        mine = json.dumps([self.rank, message])
        first = store.compare_set("failed", "", mine).decode() == mine
        if self.rank == 0:
            store.set("reported", "")
            return True
        if not first:  # who failed first speaks, where rank 0 cannot
            return True
        deadline = time.monotonic() + FAREWELL
        while not store.check(["reported"]):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


AGAIN = "Start all again; with --scratch DIR they go on where they were"

ALONE = Team()
"""One process that fits by itself."""


def join() -> Team:
    """The team that this process belongs to: `Team()`, it alone, where nobody started several.

    Raises
    ------
    UsageError
        When the environment names several processes, but not how they find each other.
    TeamError
        When they do not come together within `SILENCE` seconds.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        return Team()
    rank, local = _number("RANK"), _number("LOCAL_WORLD_SIZE", 1)
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    signal.signal(signal.SIGTERM, _stop)
    patience = timedelta(seconds=SILENCE)
    try:
        store, _, _ = next(rendezvous("env://", timeout=patience))
        dist.init_process_group(
            "gloo",
            timeout=patience,
            world_size=size,
            rank=rank,
            store=PrefixStore("gloo", store),
        )
    except (RuntimeError, ValueError) as error:
        raise TeamError(
            f"rank {rank}: the {size} processes could not come together ({_first_line(error)}); "
            "start them with torchrun"
        ) from error
    if rank == 0:
        log.info("%d processes share the photos, %d of them on this machine", size, local)
    return Team(rank, size, local, Reached(PrefixStore("fre", store)))


def _number(name: str, default: int | None = None) -> int:
    value = os.environ.get(name, default)
    if value is None:
        raise UsageError(f"WORLD_SIZE is set but {name} is not; start the command with torchrun")
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"{name} must be a number, is {value!r}; start with torchrun") from None


def _stop(number: int, frame: FrameType | None) -> None:
    # SystemExit, so that no handler of errors takes it for one of the work it was in.
    raise SystemExit(
        "error: stopped by a signal: another process of this fit was killed or failed, or torchrun "
        f"was stopped. {AGAIN}"
    )


def _tensor(array: NDArray[Any]) -> "torch.Tensor":
    import torch

    return torch.from_numpy(array)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
