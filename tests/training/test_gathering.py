"""Features that are kept, streamed, interrupted and gone on with."""

import numpy as np
import pytest

from fre_edge import gathering, grouping
from fre_edge.features import FeatureShape
from fre_edge.gathering import Keep, Stream
from fre_edge.grouping import SceneStream
from fre_edge.state import State, merge_states
from fre_edge.strategies.base import Rank
from fre_edge.strategies.sketch import merge
from fre_edge.tensors import read_tensors, reserve, write_tensors
from fre_runtime.errors import ArtifactError, DataError, OutputError

SHAPES = [FeatureShape(6, 4, 4), FeatureShape(10, 2, 2)]
RANK = Rank(1.0, 4)


@pytest.fixture(scope="module")
def scenes():
    """Which scene each of 700 photos shows: bursts of 1 to 5."""
    rng = np.random.default_rng(0)
    return np.repeat(np.arange(700), rng.integers(1, 6, 700))[:700]


@pytest.fixture(scope="module")
def features(scenes):
    rng = np.random.default_rng(1)
    layers = []
    for shape in SHAPES:
        parts = rng.normal(size=(700, shape.dimension)) * np.geomspace(5, 0.5, shape.dimension)
        noise = 0.1 * rng.normal(size=(700, shape.dimension))
        layers.append((parts[scenes] + noise + 3).astype(np.float32))
    return layers


@pytest.fixture
def small(monkeypatch):
    """Blocks, sketches and samples so small that 700 photos exceed all of them."""
    monkeypatch.setattr(gathering, "BLOCK", 64)
    monkeypatch.setattr(gathering, "sketch_rows", lambda rank: 24)
    monkeypatch.setattr(gathering, "most_sampled", lambda dimensions: 200)


def feed(gatherer, features, start=0, end=700):
    for i in range(start, end):
        gatherer.add(f"photo {i}", [layer[i] for layer in features])
    return gatherer


def test_a_stream_keeps_near_copies_in_one_fold(features, scenes, small):
    state = feed(Stream(SHAPES, RANK, "auto", 0), features).state()
    assert (state.count, state.scenes) == (700, scenes.max() + 1)
    truth = scenes[state.photos]
    same = truth[:, None] == truth
    np.testing.assert_array_equal(state.groups[:, None] == state.groups, same)
    assert (state.folds[:, None] == state.folds)[same].all()
    sizes = [sketch.count for sketch in state.sketches[0]]
    assert sum(sizes) == 700
    assert max(sizes) - min(sizes) <= 10


def test_a_stream_samples_photos_evenly_and_keeps_their_features(features, small):
    state = feed(Stream(SHAPES, RANK, "none", 0), features).state()
    assert len(state.photos) == len(set(state.photos)) == 200
    assert 250 < state.photos.mean() < 450
    for kept, layer in zip(state.kept, features, strict=True):
        np.testing.assert_array_equal(kept, layer[state.photos])


def test_the_sketches_of_a_stream_stand_for_all_photos(features, small):
    state = feed(Stream(SHAPES, RANK, "auto", 0), features).state()
    for sketches, layer in zip(state.sketches, features, strict=True):
        whole = merge(sketches)
        np.testing.assert_allclose(whole.mean, layer.mean(0), rtol=1e-5)
        energy = np.square(layer - layer.mean(0)).sum()
        assert whole.energy == pytest.approx(energy, rel=1e-4)


@pytest.mark.parametrize("stop", [1, 63, 64, 333])
def test_a_stream_goes_on_from_a_file_bit_for_bit(features, small, tmp_path, stop):
    expected = feed(Stream(SHAPES, RANK, "auto", 0), features).tensors()
    first = feed(Stream(SHAPES, RANK, "auto", 0), features, 0, stop)
    write_tensors(tmp_path / "state", first.tensors(), {})
    second = Stream(SHAPES, RANK, "auto", 0)
    second.restore(read_tensors(tmp_path / "state")[0])
    found = feed(second, features, stop).tensors()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_what_is_kept_on_disk_is_what_is_kept_in_memory(features, tmp_path):
    first = feed(Keep(SHAPES, 800, tmp_path), features, 0, 300)
    tensors = first.tensors()
    second = Keep(SHAPES, 800, tmp_path)
    second.restore(tensors)
    for a, b in zip(feed(second, features, 300).state().kept, features, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_feature_that_is_not_finite_stops_a_stream(features, small):
    bad = [layer.copy() for layer in features]
    bad[1][5, 3] = np.nan
    with pytest.raises(DataError, match="non-finite value"):
        feed(Stream(SHAPES, RANK, "auto", 0), bad)


def test_groups_of_a_table_hold_across_blocks(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("file,group\na.png,x\nb.png,y\nc.png,x\n")
    stream = SceneStream(8, str(table))
    rows, mean = np.zeros((2, 8), np.float32), np.zeros(8)
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    assert stream.find(paths[:2], rows, mean).tolist() == [0, 1]
    assert stream.find(paths[2:], rows[:1], mean).tolist() == [0]
    assert stream.count == 2


def test_a_scene_is_forgotten_after_many_others(features, monkeypatch):
    monkeypatch.setattr(grouping, "REMEMBERED", 3)
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(9, 300)).astype(np.float32)
    stream, mean = SceneStream(300, "auto"), np.zeros(300)
    first = stream.find([None] * 2, parts[[0, 1]], mean)
    near = stream.find([None] * 2, parts[[1, 2]], mean)
    assert near[0] == first[1]
    stream.find([None] * 4, parts[3:7], mean)
    assert stream.find([None] * 2, parts[[0, 7]], mean)[0] not in (first[0],)


def streamed(features, start, end):
    return feed(Stream(SHAPES, RANK, "none", 0), features, start, end).state()


def test_states_merge_in_proportion(features, small):
    merged = merge_states([streamed(features, 0, 500), streamed(features, 500, 700)], RANK)
    assert (merged.count, merged.scenes, len(set(merged.groups))) == (700, 700, len(merged.photos))
    for sketches, layer in zip(merged.sketches, features, strict=True):
        np.testing.assert_allclose(merge(sketches).mean, layer.mean(0), rtol=1e-5)
    from_first = (merged.groups < 500).sum()
    assert from_first / len(merged.groups) == pytest.approx(5 / 7, abs=0.05)


def test_complete_states_stay_complete_while_they_are_small(features, monkeypatch):
    parts = [State.of([layer[i : i + 350] for layer in features]) for i in (0, 350)]
    merged = merge_states(parts, RANK)
    assert merged.complete
    np.testing.assert_array_equal(merged.kept[0], features[0])
    monkeypatch.setattr("fre_edge.state.COMPLETE_BYTES", 4 * 600 * 136)
    grouped = [
        State(p.kept, p.photos, np.arange(350), np.arange(350) % 5, 350, 350, []) for p in parts
    ]
    merged = merge_states(grouped, RANK)
    assert not merged.complete
    whole = merge(merged.sketches[0])
    assert whole.count == 700
    np.testing.assert_allclose(whole.mean, features[0].mean(0), rtol=1e-5)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "state"
    write_tensors(path, {"a": np.arange(3)}, {"b": "c"})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_tensors(path, {"a": np.arange(4)}, {})
    tensors, notes = read_tensors(path)
    assert (tensors["a"].tolist(), notes) == ([0, 1, 2], {"b": "c"})
    assert [file.name for file in tmp_path.iterdir()] == ["state"]
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_tensors(path)


def test_a_disk_without_room_is_found_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OutputError, match=r"no room for 0.00 GB \(No space left"):
        reserve(tmp_path / "layer", 1000)
    assert list(tmp_path.iterdir()) == []
