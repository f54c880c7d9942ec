"""The models that share this machine: loaded when they are needed, kept, and bounded."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fre_runtime.detector import Detector
from fre_runtime.engines.loading import check_threads
from fre_runtime.errors import FreError
from fre_runtime.image import Image
from fre_runtime.result import Result
from fre_runtime.threads import default_threads

RETRY_SECONDS = 10.0
"""So long a model that could not be loaded is not tried again."""


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    detector: Detector | None = None
    error: FreError | None = None
    failed: float = 0.0


class ModelPool:
    """Detectors by model and variant, one each, whoever asks.

    Parameters
    ----------
    models
        How many are used at the same time: the threads are divided by it.
    engine
        ``auto``, ``openvino`` or ``onnxruntime``.
    threads
        CPU threads for all together; default: what affinity, quota and physical cores allow.
    capacity
        Most that are kept loaded; the one that was used longest ago goes first.
    throughput
        Favour images a second over the latency of each: where several lines share a model.
    """

    def __init__(
        self,
        models: int = 1,
        engine: str = "auto",
        threads: int | None = None,
        *,
        capacity: int = 8,
        throughput: bool = False,
    ) -> None:
        check_threads(threads)
        self.total = threads or default_threads()
        self.threads = max(1, self.total // max(1, models))
        self._engine, self._throughput = engine, throughput
        self._capacity = max(capacity, models)
        self._slots: OrderedDict[tuple[Path, str], _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def detector(self, model: Path, variant: str = "fp32") -> Detector:
        """The loaded detector; the first who asks waits until it is loaded.

        Raises
        ------
        FreError
            What `Detector` raises; said again for `RETRY_SECONDS` without another attempt.
        """
        key = (model.resolve(), variant)
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            while len(self._slots) > self._capacity:
                self._slots.popitem(last=False)  # who still scores with it keeps it until then
        if slot.detector is not None:
            return slot.detector
        with slot.lock:  # of this model only: others go on meanwhile
            if slot.detector is not None:
                return slot.detector
            if slot.error is not None and time.monotonic() - slot.failed < RETRY_SECONDS:
                # Its traceback would grow by the frames of all who ask, and their pictures with it.
                raise slot.error.with_traceback(None)
            try:
                slot.detector = Detector(
                    model, self._engine, variant, self.threads, throughput=self._throughput
                )
            except FreError as error:
                slot.error, slot.failed = error, time.monotonic()
                raise
            return slot.detector

    def scorer(self, model: Path, variant: str = "fp32") -> Callable[[Image], Result]:
        """What a line calls for each picture; loads the model at the first."""
        return lambda image: self.detector(model, variant)(image)
