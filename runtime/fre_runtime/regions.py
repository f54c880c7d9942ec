"""Regions of interest: polygons in the pixels of a photo, read, checked and drawn."""

import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fre_runtime.errors import DataError, UsageError
from fre_runtime.rect import Rect

Polygon = list[list[int]]
"""Corners [x, y] between pixels."""

MAX_CORNERS = 1000
"""Corners of all regions together."""


def read_region(text: str) -> list[Polygon]:
    """Parse ``x,y,width,height``, or read a JSON file: one polygon [[x, y], ...] or a list of them.

    Raises
    ------
    UsageError
        When it is neither, or the region is empty or crosses itself.
    DataError
        When the file cannot be read.
    """
    if text.lower().endswith(".json"):
        polygons = _read_polygons(Path(text))
    else:
        try:
            x, y, width, height = (int(part) for part in text.split(","))
        except ValueError:
            raise UsageError(
                f"region {text!r} is neither x,y,width,height in whole pixels nor a .json file "
                "with the corners of a polygon"
            ) from None
        if width < 1 or height < 1:
            raise UsageError(f"region {text} is empty; width and height must be at least 1")
        right, bottom = x + width, y + height
        polygons = [[[x, y], [right, y], [right, bottom], [x, bottom]]]
    for polygon in polygons:
        _check_polygon(polygon)
    return polygons


def _read_polygons(path: Path) -> list[Polygon]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from error
    polygons = [data] if _is_polygon(data) else data
    if not isinstance(polygons, list) or not polygons or not all(map(_is_polygon, polygons)):
        raise UsageError(
            f"{path}: expected one polygon [[x, y], [x, y], ...] in whole pixels, or a list of them"
        )
    # Many programs repeat the first corner at the end.
    return [p[:-1] if len(p) > 1 and p[0] == p[-1] else p for p in polygons]


def _is_polygon(data: object) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(
            isinstance(corner, list) and len(corner) == 2 and all(type(n) is int for n in corner)
            for corner in data
        )
    )


def check_regions(regions: list[Polygon]) -> None:
    """Raise `UsageError` for a polygon that is empty, crosses itself or lies outside of anything.

    Also where they have too many corners.
    """
    if (corners := sum(map(len, regions))) > MAX_CORNERS:
        raise UsageError(f"the regions have {corners} corners, at most {MAX_CORNERS} are taken")
    for polygon in regions:
        _check_polygon(polygon)


def _check_polygon(polygon: Polygon) -> None:
    shown = f"region {polygon if len(polygon) < 9 else f'of {len(polygon)} corners'}"
    if not _is_polygon(polygon) or len(polygon) < 3:
        raise UsageError(f"{shown} is no polygon; give three corners [x, y] or more")
    if not all(0 <= n < 2**20 for corner in polygon for n in corner):
        raise UsageError(f"{shown} lies outside of any image; corners must lie in 0..{2**20 - 1}")
    if _crosses_itself(polygon):
        raise UsageError(f"{shown} crosses itself; give its corners in order, each once")
    x, y = np.array(polygon, np.float64).T
    if abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2 < 1:
        raise UsageError(f"{shown} is empty; it must hold at least one pixel")


def _crosses_itself(polygon: Polygon) -> bool:
    """Whether two edges that are not neighbours meet, or a corner comes twice."""
    if len({tuple(corner) for corner in polygon}) < len(polygon):
        return True
    corners = np.array(polygon, np.int64)
    ends = np.roll(corners, -1, axis=0)
    count = len(corners)
    for i in range(count - 2):
        others = np.arange(i + 2, count - (i == 0))
        a, b, c, d = corners[i], ends[i], corners[others], ends[others]
        if (
            (_side(a, b, c) * _side(a, b, d) <= 0)
            & (_side(c, d, a) * _side(c, d, b) <= 0)
            & _boxes_meet(a, b, c, d)
        ).any():
            return True
    return False


def _side(
    start: NDArray[np.int64], end: NDArray[np.int64], point: NDArray[np.int64]
) -> NDArray[np.int64]:
    """On which side of a line a point lies: -1, 0 or 1."""
    way, to = end - start, point - start
    return np.asarray(np.sign(way[..., 0] * to[..., 1] - way[..., 1] * to[..., 0]))


def _boxes_meet(
    a: NDArray[np.int64], b: NDArray[np.int64], c: NDArray[np.int64], d: NDArray[np.int64]
) -> NDArray[np.bool_]:
    apart = (np.maximum(a, b) < np.minimum(c, d)) | (np.maximum(c, d) < np.minimum(a, b))
    return np.asarray(~apart.any(-1))


def rectangle(polygon: Polygon) -> Rect | None:
    """The rectangle that a polygon is; None for another shape."""
    box = bounds([polygon])
    right, bottom = box.x + box.width, box.y + box.height
    corners = {(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom)}
    return box if len(polygon) == 4 and {(x, y) for x, y in polygon} == corners else None


def bounds(polygons: list[Polygon]) -> Rect:
    """The smallest rectangle round all of them."""
    corners = np.array([corner for polygon in polygons for corner in polygon])
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    return Rect(left, top, right - left, bottom - top)


def drawn(
    regions: list[Polygon], rect: Rect, x_scale: float = 1.0, y_scale: float = 1.0
) -> NDArray[np.bool_]:
    """Which pixels of ``rect`` belong to a region, enlarged: bool (rect.height, rect.width)."""
    scale = np.array([x_scale, y_scale])
    canvas = np.zeros((rect.height, rect.width), np.uint8)
    for polygon in regions:
        corners = np.array(polygon) * scale - (rect.x, rect.y)
        if rectangle(polygon):
            (left, top), (right, bottom) = (
                np.clip(np.round(c), 0, (rect.width, rect.height)).astype(int)
                for c in (corners.min(0), corners.max(0))
            )
            canvas[top:bottom, left:right] = 1
        else:  # corners lie between pixels, OpenCV counts from their centres, in 1/16 here
            points = np.round((corners - 0.5) * 16).astype(np.int32)
            cv2.fillPoly(canvas, [points], 1, shift=4)
    return canvas.astype(bool)
