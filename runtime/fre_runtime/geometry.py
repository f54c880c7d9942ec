"""What the model sees of a photo, how that gets onto its input, and the way back.

A `View` is what the model card records; a `Plan` is a view laid out on photos of one size. Training
and runtime share both, so that a model is asked about what it was fitted on. Results are always in
the pixels of the caller's photo.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fre_runtime.errors import ImageError, UsageError
from fre_runtime.image import Image, resize
from fre_runtime.lifting import Grid, lifted
from fre_runtime.rect import Frame, Rect
from fre_runtime.regions import Polygon, bounds, check_regions, drawn, rectangle

PAD = 128
"""Grey level of what the model shall not see: outside of the regions, and beside a letterbox."""

ASPECTS = ("stretch", "keep")
MAX_OVERLAP = 0.9
MAX_TILES = 100_000
"""Of one photo."""


@dataclass(frozen=True)
class View:
    """What the model sees of a photo."""

    regions: list[Polygon] = field(default_factory=list)
    """Polygons in the photo's own pixels; none: all of it. The model sees their bounding box, with
    what lies outside of them painted `PAD`."""
    size: list[int] = field(default_factory=list)
    """Height and width of the photos that the regions are drawn on: on others they would lie
    elsewhere. None without regions, and until a photo has been seen; see `on`."""
    tile: list[int] = field(default_factory=list)
    """Height and width in the photo's pixels of the tiles that it is cut into, whatever its size;
    none: one piece."""
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
        check_regions(self.regions)
        if self.size and not self.regions:
            raise UsageError(f"a size of photos, {self.size}, goes with regions only")
        if self.size and (len(self.size) != 2 or min(self.size) < 1):
            raise UsageError(f"the size of photos must be [height, width], got {self.size}")

    def with_regions(self, regions: list[Polygon]) -> "View":
        """The view with other regions, on photos that are still to be seen."""
        return replace(self, regions=regions, size=[])

    def on(self, height: int, width: int) -> "View":
        """The view for photos of this size alone, where it has regions and no size yet."""
        return replace(self, size=[height, width]) if self.regions and not self.size else self

    def describe(self) -> str:
        """The view in a few words."""
        seen = "the whole photo"
        if self.regions:
            named = (str(rectangle(p) or f"polygon of {len(p)} corners") for p in self.regions)
            seen = f"region {' and '.join(named)}"
            if self.size:
                seen += f" of photos of {self.size[1]} x {self.size[0]} pixels"
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
            When the photo is not of the size that the regions are drawn on, or a region lies
            outside of it, or a tile is larger than what is looked at.
        """
        if self.size and [height, width] != self.size:
            raise ImageError(
                f"the image is {width} x {height} pixels, the model's regions are drawn on photos "
                f"of {self.size[1]} x {self.size[0]}; give it such photos, or new regions with "
                "fre-calibrate MODEL GOOD_PHOTOS --roi X,Y,W,H --out NEW"
            )
        whole = Rect(0, 0, width, height)
        if not self.regions:
            region = whole
        else:
            region = bounds(self.regions)
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
        return len(regions) > 1 or (len(regions) == 1 and rectangle(regions[0]) is None)

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
        return drawn(self.view.regions, rect)

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
            inside[~drawn(self.view.regions, target, x_scale, y_scale)] = 0
        if target == (0, 0, width, height):
            return inside
        canvas = np.zeros((height, width), np.float32)
        canvas[target.slices] = inside
        return canvas


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
