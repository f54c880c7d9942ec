"""The state that merges: exact until it is cut, and then off by no more than it says."""

import numpy as np
import pytest

from fre_edge.strategies.base import Rank, Rows
from fre_edge.strategies.incremental import subspaces_without
from fre_edge.strategies.pca import Pca
from fre_edge.strategies.sketch import Sketch, Sketcher, merge
from fre_runtime.errors import DataError


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(50, 90)) * np.geomspace(10, 0.05, 50)[:, None]
    return (rng.normal(size=(400, 50)) @ mixing + 7 * rng.normal(size=90)).astype(np.float32)


def scatter(features):
    x = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    return x.T @ x


def sketch_of(features, limit, batches):
    sketcher = Sketcher(features.shape[1], limit)
    for batch in np.array_split(features, batches):
        sketcher.add(batch)
    return sketcher.sketch()


@pytest.mark.parametrize("parts", [1, 2, 7, 400])
def test_merging_without_a_cut_is_exact(features, parts):
    merged = merge([Sketch.of(part) for part in np.array_split(features, parts)])
    assert merged.count == 400
    assert (merged.discarded, merged.bound) == (0, 0)
    np.testing.assert_allclose(merged.mean, features.mean(0, dtype=np.float64), rtol=1e-12)
    rows = merged.rows.astype(np.float64)
    np.testing.assert_allclose(rows.T @ rows, scatter(features), atol=1e-6 * rows.size)
    exact = Pca().fit(Rows(features), Rank(1.0, 8))
    found = merged.subspace(Rank(1.0, 8))
    np.testing.assert_allclose(found.components, exact.components, atol=1e-6)
    assert found.shortfall == 0
    assert found.captured == pytest.approx(exact.captured, abs=1e-9)


@pytest.mark.parametrize("limit", [8, 20, 40])
def test_what_cuts_threw_away_is_known(features, limit):
    sketch = sketch_of(features, limit, 1)
    assert len(sketch.rows) == limit
    rows = sketch.rows.astype(np.float64)
    missing = np.linalg.eigvalsh(scatter(features) - rows.T @ rows)
    whole = np.trace(scatter(features))
    assert missing[0] > -1e-6 * whole  # nothing is made up
    assert missing[-1] <= sketch.bound + 1e-6 * whole
    assert missing.sum() == pytest.approx(sketch.discarded, abs=1e-5 * whole)
    assert sketch.energy == pytest.approx(whole, rel=1e-5)
    subspace = sketch.subspace(Rank(1.0, 8))
    best = Pca().fit(Rows(features), Rank(1.0, 8)).captured
    assert best - subspace.shortfall - 1e-6 <= subspace.captured <= best + 1e-6
    assert subspace.shortfall > 0


@pytest.mark.parametrize("batches", [2, 13, 400])
def test_batches_make_no_difference(features, batches):
    one, other = sketch_of(features, 16, 1), sketch_of(features, 16, batches)
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.mean, other.mean)
    assert (one.discarded, one.bound) == (other.discarded, other.bound)


def test_looking_at_a_sketch_on_the_way_changes_nothing(features):
    sketcher = Sketcher(90, 16)
    for batch in np.array_split(features, 9):
        sketcher.add(batch)
        sketcher.sketch()
    np.testing.assert_array_equal(sketcher.sketch().rows, sketch_of(features, 16, 1).rows)


def test_goes_on_from_its_tensors_bit_for_bit(features):
    first = Sketcher(90, 16)
    first.add(features[:137])
    second = Sketcher(90, 16)
    second.restore({name: tensor.copy() for name, tensor in first.tensors().items()})
    second.add(features[137:])
    np.testing.assert_array_equal(second.sketch().rows, sketch_of(features, 16, 1).rows)


def test_shards_of_any_size_merge(features):
    """One of them without a photo, one with a single one."""
    parts = [features[:0], features[:1], features[1:300], features[300:]]
    merged = merge([sketch_of(part, 30, 1) for part in parts], 30)
    assert merged.count == 400
    found = merged.subspace(Rank(1.0, 5))
    exact = Pca().fit(Rows(features), Rank(1.0, 5))
    assert exact.captured - found.captured <= found.shortfall <= 0.01


def test_more_components_than_a_cut_sketch_holds_are_refused(features):
    with pytest.raises(DataError, match="30 components asked for, .* 400 photos holds 16"):
        sketch_of(features, 16, 1).subspace(Rank(1.0, 30))


def test_folds_that_hold_too_little_are_refused_and_not_scored_by_their_mean(features):
    sketches = [sketch_of(part, 8, 1) for part in np.array_split(features, 5)]
    assert [len(s.components) for s in subspaces_without(sketches, Rank(1.0, 30))] == [30] * 5
    merge(sketches).subspace(Rank(1.0, 40))  # all of them hold as many, four do not
    with pytest.raises(DataError, match="40 components asked for, the state of the 320 photos"):
        subspaces_without(sketches, Rank(1.0, 40))


def test_folds_that_show_nothing_are_scored_by_their_mean(features):
    same = np.repeat(features[:1], 5, 0)
    found = subspaces_without([Sketch.of(same), Sketch.of(features)], Rank(1.0, 3))
    assert [len(subspace.components) for subspace in found] == [3, 0]
    np.testing.assert_allclose(found[1].mean, features[0], rtol=1e-6)
