"""What an engine is: it runs a batch, and says what it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Outputs(NamedTuple):
    """The graph's four outputs for a batch of n images, in the graph's order."""

    pred_score: NDArray[np.float32]
    """(n,), 0..1, 0.5 is the threshold; NaN where a feature was not finite."""
    pred_label: NDArray[np.bool_]
    """(n,), True for anomalous and for NaN."""
    anomaly_map: NDArray[np.float32]
    """(n, 1, h, w), 0..1, 0.5 is the threshold of a pixel."""
    pred_mask: NDArray[np.bool_]
    """(n, 1, h, w)."""


@dataclass(frozen=True)
class Settings:
    """How an engine is to run."""

    threads: int
    """CPU threads in all."""
    precision: str = "f32"
    """The precision that was verified and calibrated; nothing else may be executed."""
    throughput: bool = False
    """False: one request as fast as possible; True: many at once, as many as possible a second."""


@dataclass(frozen=True)
class EngineInfo:
    """What runs, and how."""

    engine: str
    version: str
    precision: str
    """What is really executed, as the engine reports it where it does."""
    threads: int
    parallel: int
    """How many `run` calls at once serve it best."""


class Engine(Protocol):
    """A loaded graph."""

    @property
    def info(self) -> EngineInfo:
        """What runs, and how."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the graph file says of itself, e.g. its thresholds."""
        ...

    def run(self, batch: NDArray[Any]) -> Outputs:
        """Run one batch; safe to call from many threads.

        ``batch`` has the graph's dtype and shape (n, ...); the outputs belong to the caller.
        """
        ...
