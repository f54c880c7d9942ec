"""Limits of a live line."""

from dataclasses import dataclass

from fre_runtime.errors import UsageError

SAME_PART = 30
"""Frames of a stream that are taken to show the same part: about a second."""


@dataclass(frozen=True)
class LineOptions:
    """Limits of a line; all times in seconds, by the monotonic clock."""

    queue: int = 1
    """Pictures that may wait for the model; a newer one pushes the oldest out."""
    opening: float = 15.0
    """So long a source may take from opening to its first frame."""
    no_frame: float = 6.0
    """So long without a frame, and the source is stale and opened anew."""
    frozen: float = 10.0
    """So long the very same picture while frames keep coming, and it is stale; 0: never."""
    inference: float = 10.0
    """So long without an answer from the model, and the line is stale until it comes."""
    drift: int | None = None
    """The drift watch uses one of so many scores, as many as show the same part; 0: no watch.
    Default: `SAME_PART` for a camera, stream or video, 1 for photos in a folder."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for limits that make no sense."""
        for name, value in vars(self).items():
            least = 0 if name in ("frozen", "drift") else 1 if name == "queue" else 0.1
            if value is not None and not least <= value < float("inf"):
                raise UsageError(f"{name} must be at least {least}, got {value}")
