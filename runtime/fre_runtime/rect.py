"""Rectangles in a photo."""

from typing import NamedTuple


class Rect(NamedTuple):
    """Whole pixels of a photo."""

    x: int
    y: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of its pixels in an array of shape (H, W, ...)."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"


class Frame(NamedTuple):
    """The part of the plane that a map covers, in pixels of the photo; it may reach beyond it."""

    x: float
    y: float
    width: float
    height: float
