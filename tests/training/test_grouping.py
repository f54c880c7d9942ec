from pathlib import Path

import numpy as np
import pytest

from fre_edge.grouping import automatic_groups, make_folds, photo_gram
from fre_edge.strategies.base import gram
from fre_runtime.errors import DataError
from fre_runtime.groups import GroupTable


def bursts(scenes=12, shots=5, noise=0.2):
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(scenes, 1, 300))
    shots_of = parts + noise * rng.normal(size=(scenes, shots, 300))
    return shots_of.reshape(-1, 300).astype(np.float32), np.repeat(np.arange(scenes), shots)


def test_finds_the_bursts():
    features, truth = bursts()
    groups = automatic_groups(gram(features)[1])
    same = groups[:, None] == groups
    np.testing.assert_array_equal(same, truth[:, None] == truth)


def test_different_parts_stay_apart():
    features = np.random.default_rng(0).normal(size=(30, 400)).astype(np.float32)
    assert len(np.unique(automatic_groups(gram(features)[1]))) == 30


def test_folds_are_a_partition_that_splits_no_group():
    groups = np.random.default_rng(0).integers(0, 17, 100)
    folds = make_folds(groups, 5, seed=0)
    assert sorted(np.concatenate(folds)) == list(range(100))
    for group in np.unique(groups):
        assert sum(group in groups[fold] for fold in folds) == 1
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= np.bincount(groups).max()


def test_folds_follow_the_seed_and_the_number_of_groups():
    groups = np.arange(20)
    assert [list(f) for f in make_folds(groups, 5, 0)] == [
        list(f) for f in make_folds(groups, 5, 0)
    ]
    assert [list(f) for f in make_folds(groups, 5, 0)] != [
        list(f) for f in make_folds(groups, 5, 1)
    ]
    assert len(make_folds(np.array([0, 0, 1]), 5, 0)) == 2


def test_reads_groups_by_name_or_by_the_end_of_the_path(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("file,group\na.png,x\nmonday/b.png,y\ntuesday/b.png,x\n")
    images = [Path("all/monday/a.png"), Path("all/monday/b.png"), Path("all/tuesday/b.png")]
    groups = GroupTable.read(table).assign(images)
    assert groups[0] == groups[2] != groups[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,group\nother.png,1\n", "gives no group for .*a.png"),
        ("file,group\na.png,1\n", "a.png means both x/a.png and y/a.png"),
        ("file,group\na.png,1\na.png,2\n", "puts a.png into both 1 and 2"),
        ("name,scene\na.png,1\n", "has no column 'file'"),
    ],
)
def test_says_what_is_wrong_with_a_table(tmp_path, text, message):
    table = tmp_path / "groups.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message):
        GroupTable.read(table).assign([Path("x/a.png"), Path("y/a.png")])


def test_a_missing_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        GroupTable.read(tmp_path / "none.csv")


@pytest.mark.parametrize("ragged", [False, True])
def test_photos_in_tiles_are_grouped_as_photos(ragged):
    rng = np.random.default_rng(1)
    places = 3 * rng.normal(size=(1, 1, 4, 300))  # what every photo shows at the same place
    parts = rng.normal(size=(12, 1, 4, 300))
    shots = places + parts + 0.2 * rng.normal(size=(12, 5, 4, 300))
    features = shots.reshape(-1, 300).astype(np.float32)
    tiles = np.repeat(np.arange(60), 4)
    if ragged:  # photos of other sizes have fewer tiles
        kept = ~((tiles % 5 == 0) & (np.arange(240) % 4 == 3))
        features, tiles = features[kept], tiles[kept]
    matrix = photo_gram(gram(features)[1], tiles)
    assert matrix.shape == (60, 60)
    np.testing.assert_allclose(matrix.sum(0), 0, atol=1e-6 * np.abs(matrix).max())
    same = automatic_groups(matrix)
    if not ragged:
        truth = np.repeat(np.arange(12), 5)
        np.testing.assert_array_equal(same[:, None] == same, truth[:, None] == truth)
    assert photo_gram(matrix, np.arange(60)) is matrix
