"""One line: one source, one model; reads in one thread, scores in another."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fre_runtime.image import Image
from fre_runtime.live.captures import Capture
from fre_runtime.live.events import Counters, Sink
from fre_runtime.result import Result


@dataclass(frozen=True)
class LineOptions:
    """Limits of a line; all times in seconds, by the monotonic clock."""

    queue: int = 1
    """Pictures that may wait for the scorer; a newer one pushes the oldest out."""
    no_frame: float = 5.0
    """So long without a frame, and the source is stale and opened anew."""
    frozen: float = 10.0
    """So long the very same picture while frames keep coming, and it is stale; 0: never."""
    inference: float = 10.0
    """So long without an answer from the model, and the line is stale until it comes."""


class Line:
    """One source with one model.

    Parameters
    ----------
    name
        What events and counters call it.
    detector
        Scores one uint8 (H, W, 3) RGB image, e.g. a `Detector`.
    capture
        Where the pictures come from; see `fre_runtime.live.captures.open_capture`.
    sinks
        Get each event. The caller closes them.
    """

    def __init__(
        self,
        name: str,
        detector: Callable[[Image], Result],
        capture: Capture,
        sinks: Sequence[Sink],
        options: LineOptions | None = None,
    ) -> None:
        raise NotImplementedError

    @property
    def counters(self) -> Counters:
        """A snapshot."""
        raise NotImplementedError

    def run(self, stop: threading.Event) -> Counters:
        """Read and score until ``stop`` is set or the source ends; once only.

        Trouble of the source or a sink never raises; it is in the events and the counters.
        """
        raise NotImplementedError
