"""What a live line says of each picture, what it counts, and who listens."""

from dataclasses import dataclass
from typing import Literal, Protocol

from fre_runtime.drift import DriftState
from fre_runtime.image import Image
from fre_runtime.result import Box, Result

State = Literal["good", "anomalous", "invalid", "stale"]
"""``invalid``: there was a picture, but no score can be given for it. ``stale``: nothing new is
known, because no frame comes, the picture is frozen, or the inference does not return."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Event:
    """What is known of one source at one moment; a missing score is never ``good``."""

    line: str
    """Name of the line, the same for all its events."""
    source: str
    """Where the picture comes from: camera, address without password, or the photo's path."""
    number: int
    """Which picture of the line, from 0; where there is none, the number of those before."""
    time: float
    """Wall clock at capture, seconds since 1970; good for people, never for durations."""
    state: State
    score: float | None = None
    """Calibrated score, 0..1, 0.5 is the threshold; None unless good or anomalous."""
    raw_score: float | None = None
    """Uncalibrated reconstruction error, >= 0; None unless good or anomalous."""
    latency_ms: float | None = None
    """Milliseconds from capture to result, time in the queue included."""
    error: str | None = None
    """Why there is no score."""
    boxes: tuple[Box, ...] = ()
    """Anomalous regions, the worst first, in pixels of the picture."""
    drift: DriftState | None = None
    """What the scores so far say of light, lens and camera; None where they are not watched."""
    warning: str | None = None
    """Said once: in the event at which a drift alarm begins, and in that at which it is over."""
    result: Result | None = None
    image: Image | None = None
    """The picture, uint8 (H, W, 3) RGB; whoever keeps it keeps its memory."""


@dataclass(frozen=True)
class Counters:
    """What has become of the pictures of a line: each is counted once."""

    captured: int = 0
    scored: int = 0
    """Good or anomalous."""
    dropped: int = 0
    """Gave way to a newer one before their turn came."""
    failed: int = 0
    """Could not be scored: invalid, or a frozen picture."""
    anomalous: int = 0
    """Those of ``scored`` that are anomalous."""

    @property
    def waiting(self) -> int:
        """Pictures on their way; 0 once the line has ended."""
        return self.captured - self.scored - self.dropped - self.failed


class Sink(Protocol):
    """Where events go.

    Whoever made a sink closes it, after the lines that use it have ended. A line calls its sinks
    from more than one thread and waits for them; an `Outlet` round a sink takes that off it, and
    adds a bounded buffer, retries and the count of what was lost.
    """

    def emit(self, event: Event) -> None:
        """Take one event. What it raises never stops the line; it is counted as lost."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
