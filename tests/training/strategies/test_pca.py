import numpy as np
import pytest
from sklearn.decomposition import PCA

from fre_edge.features import FeatureShape
from fre_edge.strategies import pca
from fre_edge.strategies.base import Rank, gram, numerical_rank
from fre_edge.strategies.pca import fit_pca
from fre_runtime.errors import DataError


@pytest.fixture(params=[0, 1, 2])
def features(request):
    rng = np.random.default_rng(request.param)
    mixing = rng.normal(size=(30, 500)) * np.geomspace(10, 0.1, 30)[:, None]
    return (rng.normal(size=(40, 30)) @ mixing + rng.normal(size=500)).astype(np.float32)


def fitted(features, rank):
    return fit_pca(features, *gram(features), rank)


def test_spans_the_same_subspace_as_sklearn(features):
    ours = fitted(features, Rank(1.0, 10))
    theirs = PCA(10, svd_solver="full").fit(features.astype(np.float64))
    cosines = np.linalg.svd(ours.components @ theirs.components_.T)[1]
    np.testing.assert_allclose(cosines, 1, atol=1e-6)
    np.testing.assert_allclose(ours.mean, theirs.mean_, atol=1e-5)
    np.testing.assert_allclose(ours.spectrum[:10] / 39, theirs.explained_variance_, rtol=1e-5)
    assert ours.captured == pytest.approx(theirs.explained_variance_ratio_.sum(), abs=1e-6)


def test_rows_are_orthonormal(features):
    w = fitted(features, Rank(variance=0.97)).components
    np.testing.assert_allclose(w @ w.T, np.eye(len(w)), atol=1e-5)


@pytest.mark.parametrize("variance", [0.3, 0.9, 0.97])
def test_keeps_the_fewest_components_that_reach_the_variance(features, variance):
    ours = fitted(features, Rank(variance=variance))
    k = len(ours.components)
    share = np.cumsum(ours.spectrum) / ours.spectrum.sum()
    assert share[k - 1] >= variance
    assert k == 1 or share[k - 2] < variance


def test_signs_and_order_of_the_images_do_not_matter(features):
    a = fitted(features, Rank(1.0, 5)).components
    b = fitted(features[::-1].copy(), Rank(1.0, 5)).components
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert (a[np.arange(5), np.abs(a).argmax(1)] > 0).all()


def test_two_fits_agree_bit_for_bit_and_leave_the_features_alone(features):
    before = features.copy()
    first, second = fitted(features, Rank(0.9)), fitted(features, Rank(0.9))
    np.testing.assert_array_equal(first.components, second.components)
    np.testing.assert_array_equal(features, before)


def test_whole_variance_stops_at_the_numerical_rank(features):
    ours = fitted(features, Rank(variance=1.0))
    assert len(ours.components) == numerical_rank(ours.spectrum) <= 39


def test_more_components_than_images_allow_is_refused(features):
    with pytest.raises(DataError, match="40 components asked for, 40 images give at most 39"):
        fitted(features, Rank(1.0, 40))


def test_constant_features_are_refused():
    with pytest.raises(DataError, match="zero variance"):
        fitted(np.full((5, 100), 3.25, np.float32), Rank(0.9))


@pytest.mark.parametrize("variance", [0.3, 0.999])
def test_no_more_components_than_allowed_for_the_variance(features, variance):
    free, limited = fitted(features, Rank(variance)), fitted(features, Rank(variance, most=5))
    k = min(5, len(free.components))
    np.testing.assert_allclose(limited.components, free.components[:k], atol=1e-6)
    assert limited.captured == pytest.approx(free.spectrum[:k].sum() / free.spectrum.sum())
    assert limited.energy == pytest.approx(free.energy) == pytest.approx(free.spectrum.sum())


@pytest.mark.parametrize("rank", [Rank(1.0, 20), Rank(0.5, most=20), Rank(0.999, most=20)])
def test_a_few_eigenvectors_of_many_are_the_first_of_all(rank, monkeypatch):
    rng = np.random.default_rng(3)
    many = rng.normal(size=(pca.SOME, 60)) @ (
        rng.normal(size=(60, 90)) * np.geomspace(9, 1, 60)[:, None]
    )
    x = many.astype(np.float32)
    folds = np.array_split(np.arange(len(x)), 5)
    few = fitted(x, rank)
    maps = pca.held_out_maps(x, gram(x)[1], FeatureShape(90, 1, 1), folds[:1], rank)
    assert len(few.spectrum) == 20  # no others were looked for
    monkeypatch.setattr(pca, "SOME", len(x) + 1)
    every = fitted(x, rank)
    assert len(every.spectrum) == len(x)
    assert few.captured == pytest.approx(every.captured, abs=1e-12)
    np.testing.assert_allclose(few.components, every.components, atol=1e-5)
    again = pca.held_out_maps(x, gram(x)[1], FeatureShape(90, 1, 1), folds[:1], rank)
    np.testing.assert_allclose(maps, again, rtol=1e-9)
