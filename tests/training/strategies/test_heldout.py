import numpy as np
import pytest
from sklearn.decomposition import PCA

from fre_edge.features import FeatureShape
from fre_edge.strategies.base import Rank, gram
from fre_edge.strategies.pca import held_out_maps

SHAPE = FeatureShape(20, 3, 4)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(15, SHAPE.dimension)) * np.geomspace(5, 0.2, 15)[:, None]
    return (rng.normal(size=(25, 15)) @ mixing + 2).astype(np.float32)


@pytest.mark.parametrize(("rank", "sklearn_rank"), [(Rank(0.9), 0.9), (Rank(1.0, 6), 6)])
def test_equals_a_pca_fitted_without_the_fold(features, rank, sklearn_rank):
    folds = [np.arange(0, 9), np.arange(9, 18), np.arange(18, 25)]
    ours = held_out_maps(features, gram(features)[1], SHAPE, folds, rank)
    for fold in folds:
        train = np.delete(features, fold, axis=0).astype(np.float64)
        pca = PCA(sklearn_rank, svd_solver="full").fit(train)
        held_out = features[fold].astype(np.float64)
        error = held_out - pca.inverse_transform(pca.transform(held_out))
        expected = np.square(error.reshape(-1, *SHAPE)).mean(1)
        np.testing.assert_allclose(ours[fold], expected, rtol=1e-6)


def test_held_out_errors_exceed_those_in_sample(features):
    folds = [np.array([i]) for i in range(25)]
    held_out = held_out_maps(features, gram(features)[1], SHAPE, folds, Rank(0.99))
    pca = PCA(0.99, svd_solver="full").fit(features)
    in_sample = np.square(features - pca.inverse_transform(pca.transform(features)))
    assert held_out.mean() > 1.5 * in_sample.mean()


def test_a_single_training_image_leaves_the_difference(features):
    two = features[:2]
    maps = held_out_maps(two, gram(two)[1], SHAPE, [np.array([0]), np.array([1])], Rank(0.9))
    expected = np.square((two[0] - two[1]).astype(np.float64).reshape(SHAPE)).mean(0)
    np.testing.assert_allclose(maps, np.stack([expected, expected]), rtol=1e-6)
