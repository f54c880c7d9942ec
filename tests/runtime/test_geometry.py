import json

import cv2
import numpy as np
import pytest

from fre_runtime.errors import DataError, ImageError, UsageError
from fre_runtime.geometry import PAD, View
from fre_runtime.image import resize
from fre_runtime.lifting import lifted
from fre_runtime.merging import Merge
from fre_runtime.rect import Frame, Rect
from fre_runtime.regions import read_region

SQUARE = [[10, 20], [40, 20], [40, 60], [10, 60]]
TRIANGLE = [[0, 0], [60, 0], [0, 60]]


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)


def test_a_view_of_everything_changes_nothing(photo):
    view = View()
    assert view.is_whole
    plan = view.plan(120, 160)
    (seen,) = plan.inputs(photo, 32, 32)
    np.testing.assert_array_equal(seen, resize(photo, 32, 32))


def test_a_rectangle_is_cut_out_and_the_map_put_back(photo):
    plan = View(regions=[SQUARE]).plan(120, 160)
    assert plan.region == (10, 20, 30, 40)
    assert not plan.is_masked
    (seen,) = plan.inputs(photo, 40, 30)
    np.testing.assert_array_equal(seen, photo[20:60, 10:40])
    grid = np.ones((4, 3), np.float32)
    whole = plan.lift(grid, plan.frame(plan.region, 40, 30), 120, 160)
    assert whole[20:60, 10:40].min() == 1
    assert whole.sum() == 30 * 40
    half = plan.lift(grid, plan.frame(plan.region, 40, 30), 60, 80)
    assert half[10:30, 5:20].min() == 1
    assert half.sum() == 15 * 20


def test_outside_of_polygons_nothing_is_seen_and_nothing_found(photo):
    plan = View(regions=[TRIANGLE, SQUARE]).plan(120, 160)
    assert plan.region == (0, 0, 60, 60)
    (seen,) = plan.inputs(photo, 60, 60)
    inside = plan.inside(plan.region)
    y, x = np.mgrid[:60, :60]
    clear = (x + y < 58) | ((x >= 10) & (x < 40) & (y >= 20))
    outside = (x + y > 61) & ~((x >= 10) & (x < 40) & (y >= 20))
    assert inside[clear].all()
    assert not inside[outside].any()
    np.testing.assert_array_equal(seen[inside], photo[:60, :60][inside])
    assert (seen[~inside] == PAD).all()
    whole = plan.lift(np.ones((4, 4), np.float32), Frame(*plan.region), 120, 160)
    np.testing.assert_array_equal(whole[:60, :60] > 0, inside)
    assert whole[60:].max() == whole[:, 60:].max() == 0


@pytest.mark.parametrize(("height", "width"), [(120, 160), (77, 201), (50, 50)])
def test_a_kept_aspect_is_padded_evenly_and_the_map_lands_where_it_was(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 2 - 5 : height // 2 + 5, width // 4 - 5 : width // 4 + 5] = 255
    plan = View(aspect="keep").plan(height, width)
    (seen,) = plan.inputs(image, 64, 64)
    scale = 64 / max(height, width)
    rows, columns = round(height * scale), round(width * scale)
    content = (seen != PAD).any(2)
    assert content.sum() == rows * columns
    grid = (seen[..., 0] > 200).astype(np.float32)  # what a perfect model would find
    found = plan.lift(grid, plan.frame(plan.region, 64, 64), height, width) > 0.5
    y, x = np.nonzero(found)
    assert abs(y.mean() - (height / 2 - 0.5)) < 1.5 / scale
    assert abs(x.mean() - (width // 4 - 0.5)) < 1.5 / scale


@pytest.mark.parametrize("side", [64, 65, 100, 157])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_tiles_cover_everything_and_overlap_as_asked(side, overlap):
    plan = View(tile=[64, 32], overlap=overlap).plan(side, 100)
    covered = np.zeros((side, 100), int)
    for tile in plan.tiles:
        assert (tile.width, tile.height) == (32, 64)
        covered[tile.slices] += 1
    assert covered.min() >= 1
    starts = sorted({tile.x for tile in plan.tiles})
    assert max(np.diff(starts)) <= 32 * (1 - overlap)
    assert starts[-1] == 100 - 32


def test_tiles_that_show_no_region_are_not_looked_at():
    corner = [[0, 0], [200, 0], [0, 200]]
    plan = View(regions=[corner], tile=[20, 20]).plan(200, 200)
    assert 55 <= len(plan.tiles) < 66  # of 100; a pixel of the edge is enough
    assert Rect(180, 180, 20, 20) not in plan.tiles


def smooth(height, width):
    y, x = np.mgrid[:height, :width]
    return (0.5 + 0.2 * np.sin(x / 61) + 0.2 * np.cos(y / 47)).astype(np.float32)


def cells(piece, grid):
    return cv2.resize(piece, grid, interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("aspect", ["stretch", "keep"])
@pytest.mark.parametrize(("height", "width"), [(300, 400), (257, 391)])
def test_merged_maps_have_no_seams(height, width, aspect):
    truth = smooth(height, width)
    plan = View(tile=[64, 64], overlap=0.25, aspect=aspect).plan(height, width)
    merge = Merge(plan, 64, 64, (8, 8))
    for tile in plan.tiles:
        merge.add(tile, cells(truth[tile.slices], (8, 8)))
    found = lifted(merge.result(), Frame(*plan.region), Frame(*plan.region), height, width)
    inner = (slice(8, -8), slice(8, -8))  # the outermost half cell is flat
    assert np.abs(found - truth)[inner].max() < 0.01
    steps = max(np.abs(np.diff(found, axis=axis)).max() for axis in (0, 1))
    slopes = max(np.abs(np.diff(truth, axis=axis)).max() for axis in (0, 1))
    assert steps < 1.5 * slopes


def test_merging_never_exceeds_the_tiles_and_keeps_what_is_no_number():
    plan = View(tile=[32, 32], overlap=0.5).plan(96, 80)
    merge = Merge(plan, 32, 32, (4, 4))
    rng = np.random.default_rng(0)
    largest = 0.0
    for tile in plan.tiles:
        grid = rng.random((4, 4), np.float32)
        largest = max(largest, grid.max())
        if tile == plan.tiles[-1]:
            grid[:] = np.nan
        merge.add(tile, grid)
    merged = merge.result()
    assert np.nanmax(merged) <= largest * (1 + 1e-6)
    assert np.isnan(merged[-1, -1])
    assert not np.isnan(merged[0, 0])


def test_one_tile_is_taken_as_it_is():
    plan = View(tile=[64, 48]).plan(64, 48)
    grid = np.random.default_rng(0).random((8, 6), np.float32)
    merge = Merge(plan, 64, 48, (8, 6))
    merge.add(plan.tiles[0], grid)
    np.testing.assert_array_equal(merge.result(), grid)


def test_a_merged_map_is_bounded_however_large_the_photo():
    plan = View(tile=[1000, 1000]).plan(10_000, 10_000)
    merge = Merge(plan, 256, 256, (1000, 1000))  # lifted in the graph: a cell a pixel
    assert merge._sum.size <= 4_000_000
    for tile in plan.tiles:
        merge.add(tile, np.full((1000, 1000), 0.25, np.float32))
    np.testing.assert_allclose(merge.result(), 0.25, rtol=1e-5)


def test_reads_rectangles_and_polygons(tmp_path):
    assert read_region("10,20,30,40") == [SQUARE]
    file = tmp_path / "part.json"
    file.write_text(json.dumps([*TRIANGLE, TRIANGLE[0]]))  # closed, as many programs write it
    assert read_region(str(file)) == [TRIANGLE]
    file.write_text(json.dumps([TRIANGLE, SQUARE]))
    assert read_region(str(file)) == [TRIANGLE, SQUARE]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "neither x,y,width,height"),
        ("1,2,0,4", "1,2,0,4 is empty"),
        ("-1,2,3,4", "lies outside of any image; corners must lie in 0..1048575"),
        ("[[0, 0], [5, 5]]", "no polygon; give three corners"),
        ("[]", "expected one polygon"),
        ('{"x": 1}', "expected one polygon"),
        ("[[0, 0], [9, 9], [9, 0], [0, 9]]", "crosses itself"),
        ("[[0, 0], [9, 0], [9, 9], [9, 0]]", "crosses itself"),
        ("[[0, 0], [5, 5], [9, 9]]", "is empty"),
        ("[[0.5, 0], [5, 5], [9, 0]]", "expected one polygon"),
    ],
)
def test_says_what_is_wrong_with_a_region(tmp_path, text, message):
    if text[0] in "[{":
        file = tmp_path / "region.json"
        file.write_text(text)
        text = str(file)
    with pytest.raises(UsageError, match=message):
        read_region(text)


def test_a_region_file_that_is_no_json(tmp_path):
    (tmp_path / "a.json").write_text("[[")
    for name in ("a.json", "none.json"):
        with pytest.raises(DataError, match="cannot be read as JSON"):
            read_region(str(tmp_path / name))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(tile=[64, 64], overlap=1.0), "must lie in 0..0.9, got 1"),
        (View(tile=[64, 64], overlap=-0.1), "must lie in 0..0.9"),
        (View(tile=[64, 64], overlap=float("nan")), "must lie in 0..0.9"),
        (View(tile=[4, 64]), "at least 8 x 8 pixels"),
        (View(overlap=0.5), "needs the size of the tiles"),
        (View(aspect="crop"), "aspect 'crop' does not exist; choose stretch, keep"),
        (View(regions=[[[i, i % 7] for i in range(1001)]]), "1001 corners, at most 1000"),
        (View(size=[120, 160]), "goes with regions only"),
        (View(regions=[SQUARE], size=[120]), r"must be \[height, width\], got \[120\]"),
        (View(regions=[SQUARE], size=[120, 0]), "must be .height, width., got"),
    ],
)
def test_says_what_is_wrong_with_a_view(view, message):
    with pytest.raises(UsageError, match=message):
        view.check()


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (View(regions=[SQUARE]), "10,20,30,40 .* outside of the image of 30 x 50 pixels"),
        (View(tile=[64, 16]), "tile of 16 x 64 pixels .* is larger than the 30 x 50"),
        (View(regions=[[[0, 0], [9, 0], [9, 9]]], tile=[16, 16]), "larger than the 9 x 9"),
    ],
)
def test_says_when_a_photo_is_too_small(view, message):
    with pytest.raises(ImageError, match=message):
        view.plan(50, 30)


def test_regions_lie_where_they_were_drawn_on_photos_of_that_size_only():
    view = View(regions=[SQUARE]).on(120, 160)
    assert view.size == [120, 160]
    assert view.on(240, 320) == view
    assert view.plan(120, 160).region == (10, 20, 30, 40)
    for height, width in ((240, 320), (160, 120), (120, 161)):
        with pytest.raises(ImageError, match=rf"is {width} x {height} pixels, .* of 160 x 120"):
            view.plan(height, width)
    assert "of photos of 160 x 120 pixels" in view.describe()
    assert view.with_regions([TRIANGLE]) == View(regions=[TRIANGLE])
    tiles = View(tile=[32, 32])
    assert tiles.on(120, 160) == tiles  # counted in pixels wherever they lie
    assert len(tiles.plan(240, 320).tiles) == 80


def test_refuses_tiles_without_number():
    with pytest.raises(ImageError, match="at most 100000 are taken"):
        View(tile=[8, 8], overlap=0.9).plan(10_000, 10_000)
