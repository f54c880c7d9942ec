from pathlib import Path

import numpy as np
import pytest

from fre_edge.grouping import GroupTable, automatic_groups, make_folds
from fre_edge.strategies.base import gram
from fre_runtime.errors import DataError


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
