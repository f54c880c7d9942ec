"""What the model sees of a photo, how that gets onto its input, and the way back.

A `View` is what the model card records; a `Plan` is a view laid out on photos of one size. Training
and runtime share both, so that a model is asked about what it was fitted on. Results are always in
the pixels of the caller's photo.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fre_runtime.errors import DataError, ImageError, UsageError
from fre_runtime.image import Image, resize

Grid = NDArray[np.float32]

PAD = 128
"""Grey level of what the model shall not see: outside of the regions, and beside a letterbox."""

ASPECTS = ("stretch", "keep")
MAX_OVERLAP = 0.9
MAX_CORNERS = 1000
"""Corners of all regions together."""
MAX_TILES = 100_000
"""Of one photo."""
MAX_CELLS = 4_000_000
"""Largest number of cells of a merged map: its memory does not follow the photo's."""
BAND = 256
"""Rows that are lifted at a time."""


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


@dataclass(frozen=True)
class View:
    """What the model sees of a photo."""

    regions: list[list[list[int]]] = field(default_factory=list)
    """Polygons of corners [x, y] between pixels, in the photo's own pixels; none: all of it. The
    model sees their bounding box, with what lies outside of them painted `PAD`."""
    tile: list[int] = field(default_factory=list)
    """Height and width in the photo's pixels of the tiles that it is cut into; none: one piece."""
    overlap: float = 0.0
    """Share of a tile that its neighbour covers too, at least."""
    aspect: str = "stretch"
    """``stretch`` to the model's input, or ``keep`` the aspect ratio and pad with `PAD`."""

    @property
    def is_whole(self) -> bool:
        """Whether the whole photo is stretched to the model's input."""
        return not self.regions and not self.tile and self.aspect == "stretch"

    def check(self) -> None:
        """Raise `UsageError` for a value that makes no sense for any photo."""
        if self.aspect not in ASPECTS:
            raise UsageError(f"aspect {self.aspect!r} does not exist; choose {', '.join(ASPECTS)}")
        if self.tile and (len(self.tile) != 2 or min(self.tile) < 8):
            raise UsageError(f"a tile must be at least 8 x 8 pixels, got {self.tile}")
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise UsageError(
                f"overlap is a share of the tile and must lie in 0..{MAX_OVERLAP}, "
                f"got {self.overlap:g}"
            )
        if self.overlap and not self.tile:
            raise UsageError(f"an overlap of {self.overlap:g} needs the size of the tiles as well")
        if (corners := sum(map(len, self.regions))) > MAX_CORNERS:
            raise UsageError(f"the regions have {corners} corners, at most {MAX_CORNERS} are taken")
        for polygon in self.regions:
            _check_polygon(polygon)

    def describe(self) -> str:
        """The view in a few words."""
        seen = "the whole photo"
        if self.regions:
            named = (str(_rectangle(p) or f"polygon of {len(p)} corners") for p in self.regions)
            seen = f"region {' and '.join(named)}"
        if self.tile:
            height, width = self.tile
            seen += f", in tiles of {width} x {height} pixels that overlap by {self.overlap:g}"
        kept = f"aspect kept, padded with grey {PAD}"
        return f"{seen}, {kept if self.aspect == 'keep' else 'stretched'} to the input"

    def metadata(self) -> dict[str, str]:
        """The view as a key-value pair, for the graph files' own metadata."""
        return {"fre_view": json.dumps(asdict(self))}

    def plan(self, height: int, width: int) -> "Plan":
        """Lay the view out on photos of ``height`` x ``width`` pixels.

        Raises
        ------
        ImageError
            When a region lies outside of the photo, or a tile is larger than what is looked at.
        """
        whole = Rect(0, 0, width, height)
        if not self.regions:
            region = whole
        else:
            region = _bounds(self.regions)
            if (
                region.x + region.width > width or region.y + region.height > height
            ):  # corners are never negative
                raise ImageError(
                    f"the region {region} (x,y,width,height) lies outside of the image of "
                    f"{width} x {height} pixels; give the model photos of the size it was made for"
                )
        if not self.tile:
            return Plan(self, (height, width), region, (region,))
        tile_height, tile_width = self.tile
        if tile_height > region.height or tile_width > region.width:
            raise ImageError(
                f"a tile of {tile_width} x {tile_height} pixels (width x height) is larger than "
                f"the {region.width} x {region.height} that are looked at; use smaller tiles"
            )
        rows = _starts(region.height, tile_height, self.overlap)
        columns = _starts(region.width, tile_width, self.overlap)
        if len(rows) * len(columns) > MAX_TILES:
            raise ImageError(
                f"tiles of {tile_width} x {tile_height} pixels with an overlap of "
                f"{self.overlap:g} would be {len(rows) * len(columns)} of one photo, at most "
                f"{MAX_TILES} are taken; use larger tiles or less overlap"
            )
        tiles = [
            Rect(region.x + x, region.y + y, tile_width, tile_height) for y in rows for x in columns
        ]
        plan = Plan(self, (height, width), region, tuple(tiles))
        if plan.is_masked:  # what shows nothing of a region needs no look
            plan = replace(plan, tiles=tuple(t for t in tiles if plan.inside(t).any()))
        return plan


@dataclass(frozen=True)
class Plan:
    """A view on photos of one size."""

    view: View
    size: tuple[int, int]
    """Height and width of the photos, in pixels."""
    region: Rect
    """Bounding box of the view's regions, or the whole photo."""
    tiles: tuple[Rect, ...]
    """What goes into the model: the region itself, or the tiles that cover it, by rows."""

    @property
    def is_masked(self) -> bool:
        """Whether the regions are less than their bounding box."""
        regions = self.view.regions
        return len(regions) > 1 or (len(regions) == 1 and _rectangle(regions[0]) is None)

    def inputs(self, image: Image, height: int, width: int) -> Iterator[Image]:
        """Yield each tile of a photo as the model takes it: uint8 (height, width, 3)."""
        return (self.input(image, tile, height, width) for tile in self.tiles)

    def input(self, image: Image, tile: Rect, height: int, width: int) -> Image:
        """One tile of a photo as the model takes it: uint8 (height, width, 3)."""
        piece = image[tile.slices]
        if self.is_masked:
            piece = np.where(self.inside(tile)[..., None], piece, np.uint8(PAD))
        if self.view.aspect == "stretch":
            return resize(piece, height, width)
        content = _letterbox(tile, height, width)
        boxed = np.full((height, width, 3), PAD, np.uint8)
        boxed[content.slices] = resize(piece, content.height, content.width)
        return boxed

    def frame(self, tile: Rect, height: int, width: int) -> Frame:
        """The part of the plane that the map of a tile covers; see `input`."""
        if self.view.aspect == "stretch":
            return Frame(*tile)
        content = _letterbox(tile, height, width)
        x, y = tile.width / content.width, tile.height / content.height
        return Frame(tile.x - content.x * x, tile.y - content.y * y, width * x, height * y)

    def inside(self, rect: Rect) -> NDArray[np.bool_]:
        """Which pixels of ``rect`` belong to a region: bool (rect.height, rect.width)."""
        return self._drawn(rect, 1.0, 1.0)

    def _drawn(self, rect: Rect, x_scale: float, y_scale: float) -> NDArray[np.bool_]:
        """The regions, enlarged, as the pixels of ``rect``."""
        scale = np.array([x_scale, y_scale])
        canvas = np.zeros((rect.height, rect.width), np.uint8)
        for polygon in self.view.regions:
            corners = np.array(polygon) * scale - (rect.x, rect.y)
            if _rectangle(polygon):
                (left, top), (right, bottom) = (
                    np.clip(np.round(c), 0, (rect.width, rect.height)).astype(int)
                    for c in (corners.min(0), corners.max(0))
                )
                canvas[top:bottom, left:right] = 1
            else:  # corners lie between pixels, OpenCV counts from their centres, in 1/16 here
                points = np.round((corners - 0.5) * 16).astype(np.int32)
                cv2.fillPoly(canvas, [points], 1, shift=4)
        return canvas.astype(bool)

    def lift(self, grid: Grid, frame: Frame, height: int, width: int) -> Grid:
        """Draw a map that covers ``frame`` on a photo of this plan, shown ``height`` x ``width``.

        Bilinear; 0 outside of the regions.
        """
        y_scale, x_scale = height / self.size[0], width / self.size[1]
        left, top = round(self.region.x * x_scale), round(self.region.y * y_scale)
        right = max(left + 1, round((self.region.x + self.region.width) * x_scale))
        bottom = max(top + 1, round((self.region.y + self.region.height) * y_scale))
        target = Rect(left, top, right - left, bottom - top)
        inside = lifted(grid, frame, Frame(*self.region), target.height, target.width)
        if self.is_masked:
            inside[~self._drawn(target, x_scale, y_scale)] = 0
        if target == (0, 0, width, height):
            return inside
        canvas = np.zeros((height, width), np.float32)
        canvas[target.slices] = inside
        return canvas


class Merge:
    """The maps of overlapping tiles become one map of a region.

    Each tile counts most at its centre and next to nothing at its edge, where the network sees
    least: neighbours pass into each other without a seam. The merged value never exceeds the
    tiles' own.

    Parameters
    ----------
    plan
        The tiles.
    height, width
        Of the model's input, in pixels.
    grid
        Height and width of one tile's map, in cells.
    """

    def __init__(self, plan: Plan, height: int, width: int, grid: tuple[int, int]) -> None:
        frame = plan.frame(plan.tiles[0], height, width)
        rows = plan.region.height * grid[0] / frame.height
        columns = plan.region.width * grid[1] / frame.width
        shrink = min(1.0, (MAX_CELLS / (rows * columns)) ** 0.5)
        self._plan, self._input = plan, (height, width)
        self._sum = np.zeros([max(1, round(n * shrink)) for n in (rows, columns)], np.float32)
        self._weight = np.zeros_like(self._sum)

    def add(self, tile: Rect, grid: Grid) -> None:
        """Add the map (h, w) of one tile."""
        region, frame = self._plan.region, self._plan.frame(tile, *self._input)
        if (
            frame == Frame(*region) and grid.shape == self._sum.shape
        ):  # one tile is all: nothing to merge
            self._sum, self._weight = grid, np.ones_like(grid)
            return
        rows = _cells(tile.y - region.y, tile.height, region.height, self._sum.shape[0])
        columns = _cells(tile.x - region.x, tile.width, region.width, self._sum.shape[1])
        y = region.y + (rows + 0.5) * (region.height / self._sum.shape[0])
        x = region.x + (columns + 0.5) * (region.width / self._sum.shape[1])
        part = _sampled(
            grid,
            _taps(y, frame.y, frame.height, grid.shape[0]),
            _taps(x, frame.x, frame.width, grid.shape[1]),
        )
        weight = np.outer(_hat(y, tile.y, tile.height), _hat(x, tile.x, tile.width))
        where = np.ix_(rows, columns)
        self._sum[where] += part * weight
        self._weight[where] += weight

    def result(self) -> Grid:
        """The merged map, float32, over the plan's region; 0 where no tile lies."""
        return np.asarray(self._sum / np.maximum(self._weight, 1e-30), np.float32)


def lifted(grid: Grid, frame: Frame, region: Frame, height: int, width: int) -> Grid:
    """Bilinear values of a map at ``height`` x ``width`` points spread evenly over ``region``.

    ``grid`` (h, w) covers ``frame``; beyond the centres of its outer cells it goes on as they are.
    """
    if frame == region:
        stretched: Any = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        return stretched  # type: ignore[no-any-return]
    y = region.y + (np.arange(height) + 0.5) * (region.height / height)
    x = region.x + (np.arange(width) + 0.5) * (region.width / width)
    columns = _taps(x, frame.x, frame.width, grid.shape[1])
    out = np.empty((height, width), np.float32)
    for start in range(0, height, BAND):
        rows = _taps(y[start : start + BAND], frame.y, frame.height, grid.shape[0])
        out[start : start + BAND] = _sampled(grid, rows, columns)
    return out


class _Taps(NamedTuple):
    """Between which two cells each point lies, and how near to the second."""

    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    share: Grid


def _taps(points: NDArray[np.floating[Any]], start: float, length: float, cells: int) -> _Taps:
    at = np.clip((points - start) * (cells / length) - 0.5, 0, cells - 1)
    lower = np.floor(at).astype(np.int64)
    return _Taps(lower, np.minimum(lower + 1, cells - 1), (at - lower).astype(np.float32))


def _sampled(grid: Grid, rows: _Taps, columns: _Taps) -> Grid:
    wide = grid[:, columns.lower] * (1 - columns.share) + grid[:, columns.upper] * columns.share
    share = rows.share[:, None]
    return np.asarray(wide[rows.lower] * (1 - share) + wide[rows.upper] * share, np.float32)


def _cells(start: int, length: int, total: int, cells: int) -> NDArray[np.int64]:
    """Cells of ``cells`` over ``total`` pixels whose centre lies in ``length`` from ``start``."""
    unit = total / cells
    first = int(np.ceil(start / unit - 0.5))
    last = int(np.ceil((start + length) / unit - 0.5))
    return np.arange(max(first, 0), min(last, cells))


def _hat(points: NDArray[np.floating[Any]], start: int, length: int) -> Grid:
    """1 in the middle, falling to almost 0 at both ends."""
    distance = np.minimum(points - start, start + length - points) * (2 / length)
    return np.asarray(np.maximum(distance, 1e-3), np.float32)


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    """Where tiles start so that they cover ``side`` evenly and overlap by ``overlap`` or more."""
    stride = max(1, int(tile * (1 - overlap)))
    count = -(-(side - tile) // stride) + 1
    return [round(i * (side - tile) / max(1, count - 1)) for i in range(count)]


def _letterbox(tile: Rect, height: int, width: int) -> Rect:
    """Where a tile lies on the model's input when its aspect is kept: in the middle."""
    scale = min(height / tile.height, width / tile.width)
    inner_height = min(height, max(1, round(tile.height * scale)))
    inner_width = min(width, max(1, round(tile.width * scale)))
    return Rect((width - inner_width) // 2, (height - inner_height) // 2, inner_width, inner_height)


def read_region(text: str) -> list[list[list[int]]]:
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


def _read_polygons(path: Path) -> list[list[list[int]]]:
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


def _check_polygon(polygon: list[list[int]]) -> None:
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


def _crosses_itself(polygon: list[list[int]]) -> bool:
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


def _rectangle(polygon: list[list[int]]) -> Rect | None:
    """The rectangle that a polygon is; None for another shape."""
    box = _bounds([polygon])
    right, bottom = box.x + box.width, box.y + box.height
    corners = {(box.x, box.y), (right, box.y), (right, bottom), (box.x, bottom)}
    return box if len(polygon) == 4 and {(x, y) for x, y in polygon} == corners else None


def _bounds(polygons: list[list[list[int]]]) -> Rect:
    corners = np.array([corner for polygon in polygons for corner in polygon])
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    return Rect(left, top, right - left, bottom - top)
