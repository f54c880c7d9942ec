import dataclasses

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from fre_edge import FitOptions, fit
from fre_edge.features import FeatureShape
from fre_edge.fre import Layer
from fre_edge.partition import Divided, partition_of
from fre_edge.strategies.autoencoder import Autoencoder
from fre_edge.strategies.base import Rank, Rows
from fre_edge.strategies.choose import make_strategy
from fre_edge.strategies.pca import Pca
from fre_runtime.errors import DataError, UsageError

SHAPE = FeatureShape(6, 4, 5)
KINDS = ["whole", "regions", "regions:3", "regions:9", "local"]
COUNTS = {"whole": 1, "regions": 4, "regions:3": 9, "regions:9": 20, "local": 1}


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(30, SHAPE.dimension)) * np.geomspace(5, 0.2, 30)[:, None]
    return (rng.normal(size=(50, 30)) @ mixing + rng.normal(size=120)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_lies_in_one_part_and_comes_back_to_its_place(kind):
    partition = partition_of(kind, SHAPE)
    assert len(partition.parts) == COUNTS[kind]
    u = torch.arange(3.0 * SHAPE.dimension).reshape(3, *SHAPE)
    energies = [part.vectors(u).sum(1).flatten(1) for part in partition.parts]
    torch.testing.assert_close(partition.join(energies), u.sum(1).flatten(1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_fit_sees_the_vectors_that_the_graph_sees(kind, features):
    partition = partition_of(kind, SHAPE)
    u = torch.from_numpy(features).reshape(-1, *SHAPE)
    for rows, part in zip(partition.rows(Rows(features)), partition.parts, strict=True):
        np.testing.assert_array_equal(rows.whole(), part.vectors(u).flatten(1))


@pytest.mark.parametrize("kind", ["local", "regions"])
def test_vectors_are_read_as_they_are_wanted(kind, features):
    """Some of them, in any order, without some: as from an array of them all."""
    chosen = np.random.default_rng(1).permutation(40)
    for rows in partition_of(kind, SHAPE).rows(Rows(features)):
        plain = Rows(rows.whole())
        assert (len(rows), rows.dimension) == (len(plain), plain.dimension)
        rest, plain_rest = rows.without(chosen[:9]), plain.without(chosen[:9])
        np.testing.assert_array_equal(rows.take(chosen), plain.take(chosen))
        np.testing.assert_array_equal(rest.whole(), plain_rest.whole())
        for a, b in zip(rest.batches(7), plain_rest.batches(7), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["pca", "randomized", "tied-ae", "ae"])
@pytest.mark.parametrize("kind", ["local", "regions"])
def test_any_strategy_works_on_the_parts(name, kind, features):
    strategy = make_strategy(name, FitOptions(method=name))
    if isinstance(strategy, Autoencoder):
        strategy = dataclasses.replace(strategy, warm=True, epochs=2)
    divided = Divided(strategy, partition_of(kind, SHAPE))
    parts = list(divided.partition.rows(Rows(features)))
    folds = [np.arange(0, 25), np.arange(25, 50)]
    got = divided.held_out(parts, folds, Rank(1.0, 3))
    exact = Divided(Pca(), divided.partition).held_out(parts, folds, Rank(1.0, 3))
    assert got.shape == (50, 4, 5)
    assert got.mean() == pytest.approx(exact.mean(), rel=0.1)
    assert len(divided.fit(parts, Rank(1.0, 3))) == COUNTS[kind]


def by_sklearn(train, held_out, kind, variance):
    """Error maps of ``held_out`` under PCAs of the same vectors of ``train``."""
    maps = np.zeros((len(held_out), SHAPE.height, SHAPE.width))
    a, b = (x.reshape(-1, *SHAPE).astype(np.float64) for x in (train, held_out))
    if kind == "local":
        windows = [(slice(None), slice(None))]
    else:
        rows = [slice(0, 2), slice(2, 4)]
        windows = [(r, c) for r in rows for c in (slice(0, 2), slice(2, 5))]
    for r, c in windows:
        x, y = a[:, :, r, c], b[:, :, r, c]
        size = y.shape
        if kind == "local":
            x, y = (z.transpose(0, 2, 3, 1).reshape(-1, SHAPE.channels) for z in (x, y))
        else:
            x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
        pca = PCA(variance, svd_solver="full").fit(x)
        error = np.square(y - pca.inverse_transform(pca.transform(y)))
        if kind == "local":
            maps[:, r, c] = error.mean(1).reshape(len(b), SHAPE.height, SHAPE.width)
        else:
            maps[:, r, c] = error.reshape(size).mean(1)
    return maps


@pytest.mark.parametrize("kind", ["local", "regions"])
def test_held_out_maps_are_those_of_a_pca_without_the_fold(kind, features):
    divided = Divided(Pca(), partition_of(kind, SHAPE))
    folds = [np.arange(0, 50, 2), np.arange(1, 50, 4), np.arange(3, 50, 4)]
    got = divided.held_out(list(divided.partition.rows(Rows(features))), folds, Rank(0.8))
    for fold in folds:
        expected = by_sklearn(np.delete(features, fold, 0), features[fold], kind, 0.8)
        np.testing.assert_allclose(got[fold], expected, rtol=1e-4, atol=1e-6 * expected.max())


@pytest.mark.parametrize("kind", ["local", "regions"])
def test_the_module_gives_the_maps_that_were_fitted(kind, features):
    partition = partition_of(kind, SHAPE)
    subspaces = Divided(Pca(), partition).fit(list(partition.rows(Rows(features))), Rank(0.8))
    expected = by_sklearn(features, features[:7], kind, 0.8)
    u = torch.from_numpy(features[:7]).reshape(-1, *SHAPE)
    got = Layer(subspaces, partition)(u)[0].reshape(7, 4, 5).numpy() / SHAPE.channels
    np.testing.assert_allclose(got, expected, atol=0.03 * expected.max())  # W in 8 bits


def test_local_does_not_know_where_things_belong(features):
    """Cells that change places keep their errors; under ``whole`` they do not."""
    shuffled = features.reshape(-1, *SHAPE)[:, :, ::-1, ::-1].reshape(features.shape).copy()
    maps = {}
    for kind in ("local", "whole"):
        partition = partition_of(kind, SHAPE)
        layer = Layer(
            Divided(Pca(), partition).fit(list(partition.rows(Rows(features))), Rank(0.8)),
            partition,
        )
        a, b = (layer(torch.from_numpy(x).reshape(-1, *SHAPE))[0] for x in (features, shuffled))
        maps[kind] = a, b.flip(1)
    torch.testing.assert_close(*maps["local"], rtol=1e-3, atol=1e-3)
    assert maps["whole"][1].mean() > 2 * maps["whole"][0].mean()


@pytest.mark.parametrize(
    "kind", ["", "Whole", "regions:", "regions:1", "regions:00", "regions:x", "local:2"]
)
def test_other_subspaces_do_not_exist(kind):
    with pytest.raises(UsageError, match="does not exist; choose whole, local, regions"):
        FitOptions(subspace=kind).check()


OPTIONS = FitOptions(
    backbone="resnet18", layers=("layer1",), weights="random", size=(32, 32), subspace="local"
)


@pytest.mark.parametrize("method", ["auto", "randomized"])
@pytest.mark.parametrize("rank", [{"variance": 1.0}, {"components": 64}])
def test_a_subspace_of_every_direction_is_refused(rank, method, tmp_path, make_folder):
    folder = make_folder(tmp_path, 6)
    with pytest.raises(DataError, match="64 components of vectors with 64 features leave no error"):
        fit(folder, dataclasses.replace(OPTIONS, method=method, **rank))


def test_what_is_streamed_cannot_be_divided(tmp_path, make_folder):
    folder = make_folder(tmp_path, 6)
    with pytest.raises(UsageError, match="needs the features of all photos, method incremental"):
        fit(folder, dataclasses.replace(OPTIONS, method="incremental"))


def test_a_window_that_shows_the_same_in_all_photos_is_named(features):
    grid = features.reshape(-1, *SHAPE).copy()
    grid[:, :, :2, :2] = 7.0  # padding
    divided = Divided(Pca(), partition_of("regions", SHAPE))
    parts = list(divided.partition.rows(Rows(grid.reshape(len(grid), -1))))
    with pytest.raises(DataError, match="one of the 4 regions shows the same .* fewer regions"):
        divided.fit(parts, Rank(0.9))
