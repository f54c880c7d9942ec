"""Limits of a live line."""

from dataclasses import dataclass

from fre_runtime.errors import UsageError


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

    def __post_init__(self) -> None:
        """Raise `UsageError` for limits that make no sense."""
        for name, value in vars(self).items():
            least = 0 if name == "frozen" else 1 if name == "queue" else 0.1
            if not least <= value < float("inf"):
                raise UsageError(f"{name} must be at least {least}, got {value}")
