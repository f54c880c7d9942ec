"""Draws of a split: what they keep, and what they leak."""

from pathlib import Path

import pytest

from benchmarks.quality import (
    shipped,
)
from benchmarks.quality.data import Category
from benchmarks.quality.splits import (
    Split,
    draw,
    given,
    lay_out,
    read_groups,
    redrawn,
    seen_in_training,
)
from fre_runtime.errors import DataError
from fre_runtime.files import labelled_images

GROUP_SIZES = (1, 6, 6, 3, 2, 6, 1, 4, 6, 5)


@pytest.fixture
def split():
    """40 photos of 10 parts; each part's exposures share the number before the dash."""
    photos = [
        Path(f"{part}-{exposure}.png")
        for part, size in enumerate(GROUP_SIZES)
        for exposure in range(size)
    ]
    return Split(tuple(photos[:30]), tuple(photos[30:]))


def part_of(path):
    return path.name.split("-")[0]


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_random_split_keeps_the_counts_and_loses_no_photo(split, seed):
    drawn = redrawn(split, seed)
    assert len(drawn.train) == len(split.train)
    assert not set(drawn.train) & set(drawn.test)
    assert set(drawn.train) | set(drawn.test) == set(split.good)
    assert drawn == redrawn(split, seed)
    assert drawn != redrawn(split, seed + 1)


@pytest.mark.parametrize("seed", range(1, 21))
def test_a_grouped_split_has_no_part_on_both_sides(split, seed):
    group_of = {path: part_of(path) for path in split.good}
    drawn = redrawn(split, seed, group_of)
    assert not {part_of(p) for p in drawn.train} & {part_of(p) for p in drawn.test}
    assert set(drawn.train) | set(drawn.test) == set(split.good)
    assert len(split.train) <= len(drawn.train) < len(split.train) + max(GROUP_SIZES)
    assert seen_in_training(drawn, group_of) == 0


def test_the_first_draw_is_the_split_as_given(split):
    assert draw(split, 0) is split
    assert draw(split, 1) == redrawn(split, 1)


def test_what_a_split_leaks_is_counted(split):
    group_of = {path: part_of(path) for path in split.good}
    # one of six photos of part 8 is trained on, the other five are tested; part 9 is tested only
    assert seen_in_training(split, group_of) == sum(part_of(p) == "8" for p in split.test) > 0
    assert seen_in_training(Split(split.train, ()), group_of) == 0


def test_groups_come_from_names(split):
    photos = (*split.train, *split.test)
    by_name = read_groups(r"name:^(\d+)-", Split(photos[:29], photos[29:]))
    assert by_name == {path: part_of(path) for path in split.good}


def test_groups_come_from_a_file(category, tmp_path):
    split = given(category)
    table = tmp_path / "groups.csv"
    rows = [f"{'/'.join(p.parts[-3:])},{i // 2}" for i, p in enumerate(split.train)]
    rows += [f"{'/'.join(p.parts[-3:])},t{i}" for i, p in enumerate(split.test)]
    table.write_text("\n".join(["file,group", *rows]))
    by_file = read_groups(str(table), split)
    assert by_file[split.train[0]] == by_file[split.train[1]] != by_file[split.train[2]]


@pytest.fixture
def distinct(category, tmp_path):
    """The category with names that its two folders do not share."""
    return lay_out(given(category), category, tmp_path / "distinct")


def test_groups_that_are_missing_or_on_both_sides_are_refused(distinct):
    split = given(distinct)
    with pytest.raises(DataError, match="finds nothing in this name"):
        read_groups("name:tile_[0-9]+", split)
    with pytest.raises(DataError, match="1 groups, the first 'photo', lie in both"):
        read_groups("name:photo", split)


def test_a_laid_out_split_is_a_category_with_all_defects_and_masks(category, tmp_path):
    split = redrawn(given(category), 3)
    out = lay_out(split, category, tmp_path / "out")
    again = given(out)
    # Both folders of the original number their photos alike: none may overwrite another.
    assert (len(again.train), len(again.test)) == (len(split.train), len(split.test))
    contents = {path.read_bytes() for path in again.good}
    assert contents == {path.read_bytes() for path in split.good}
    defects = [image for image in labelled_images(out) if image.is_defective]
    assert len(defects) == 8
    assert all(image.mask is not None for image in defects)
    good_only = lay_out(split, category, tmp_path / "none", kinds={"dent"})
    assert not any(image.is_defective for image in labelled_images(good_only))


def test_a_leak_is_found_where_groups_of_the_same_photos_are_known(split):
    group_of = {Path("g") / path.name: part_of(path) for path in split.good}
    honest_split = redrawn(Split(tuple(list(group_of)[:30]), tuple(list(group_of)[30:])), 1)
    honest = Category("honest", Path("g"), honest_split, group_of)
    other = Category("other", Path("o"), Split((Path("x"),), (Path("y"),)))
    [leak] = shipped.leaks([Category("easy", Path("e"), split), other, honest])
    assert leak == {
        "data": "easy",
        "honest": "honest",
        "seen_in_training": sum(part_of(p) == "8" for p in split.test),
        "test_good": 10,
    }
