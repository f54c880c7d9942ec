"""What every strategy promises, on the same features."""

import numpy as np
import pytest

from fre_edge.features import FeatureShape
from fre_edge.strategies.autoencoder import Autoencoder
from fre_edge.strategies.base import Rank, Rows, refit_maps
from fre_edge.strategies.covariance import Covariance
from fre_edge.strategies.incremental import Incremental
from fre_edge.strategies.pca import Pca
from fre_edge.strategies.randomized import Randomized
from fre_runtime.errors import DataError

STRATEGIES = {
    "pca": Pca(),
    "covariance": Covariance(),
    "incremental": Incremental(),
    "randomized": Randomized(),
    "tied-ae": Autoencoder(tied=True, warm=False),
    "tied-ae, warm": Autoencoder(tied=True, warm=True),
    "ae": Autoencoder(tied=False, warm=False),
    "ae, warm": Autoencoder(tied=False, warm=True),
}
LACKING = {"pca": 1e-6, "covariance": 1e-6}
"""Variance that may lack of the best k components; 1% for all others."""
SHAPE = FeatureShape(8, 4, 4)
K = 6
PCA_ONLY = [name for name in STRATEGIES if "ae" not in name]
SHORT = {name: s for name, s in STRATEGIES.items() if name in PCA_ONLY} | {
    "tied-ae": Autoencoder(tied=True, warm=True, epochs=2),
    "ae": Autoencoder(tied=False, warm=True, epochs=2),
}
"""For what must hold however long the training was."""


@pytest.fixture(scope="module")
def features():
    """A falling spectrum, a mean far from 0, more rows than any sketch holds."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(60, SHAPE.dimension)) * np.geomspace(10, 0.1, 60)[:, None]
    return (rng.normal(size=(1100, 60)) @ mixing + rng.normal(size=128) * 5).astype(np.float32)


@pytest.fixture(scope="module")
def fits(features):
    return {name: s.fit(Rows(features), Rank(1.0, K)) for name, s in STRATEGIES.items()}


@pytest.fixture(params=STRATEGIES)
def name(request):
    return request.param


def best(features, k):
    """Share of the variance that the best k components hold."""
    x = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    values = np.square(np.linalg.svd(x, compute_uv=False))
    return values[:k].sum() / values.sum()


def captured(features, subspace):
    """Measured, not as the strategy says."""
    x = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    return 1 - np.square(subspace.residuals(features)).sum() / np.square(x).sum()


def test_captures_what_it_promises(name, features, fits):
    subspace, most = fits[name], best(features, K)
    found = captured(features, subspace)
    assert len(subspace.components) == K
    assert most - LACKING.get(name, 0.01) <= found <= most + 1e-6
    assert subspace.captured == pytest.approx(found, abs=1e-4)
    assert most <= subspace.captured + subspace.shortfall + 1e-6


def test_rows_are_orthonormal_and_signed(name, fits):
    subspace = fits[name]
    if subspace.decoder is not None:
        pytest.skip("the untied pair is as it was learned")
    w = subspace.components
    np.testing.assert_allclose(w @ w.T, np.eye(K), atol=1e-5)
    assert (w[np.arange(K), np.abs(w).argmax(1)] > 0).all()


@pytest.mark.parametrize("variance", [0.5, 0.9])
@pytest.mark.parametrize("one", PCA_ONLY)
def test_keeps_the_fewest_components_that_reach_the_variance(one, features, variance):
    k = len(STRATEGIES[one].fit(Rows(features), Rank(variance)).components)
    needed = next(k for k in range(1, 61) if best(features, k) >= variance)
    assert needed <= k <= needed + 1


@pytest.mark.parametrize("one", SHORT)
def test_is_the_same_bit_for_bit_and_changes_nothing(one, features):
    before = features.copy()
    first, again = (SHORT[one].fit(Rows(features), Rank(1.0, K)) for _ in range(2))
    for field in ("mean", "components", "spectrum", "decoder", "bias"):
        np.testing.assert_array_equal(getattr(again, field), getattr(first, field))
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize("one", PCA_ONLY)
def test_rows_on_disk_and_rows_left_out_give_the_same(one, features, tmp_path, fits):
    file = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(len(features) + 9, 128))
    file[: len(features)] = features
    file[len(features) :] = np.nan
    rows = Rows(file).without(np.arange(len(features), len(file)))
    again = STRATEGIES[one].fit(rows, Rank(1.0, K))
    np.testing.assert_allclose(again.components, fits[one].components, atol=1e-5)


@pytest.mark.parametrize("one", SHORT)
def test_held_out_maps_come_from_fits_that_have_not_seen_the_fold(one, features):
    rows, few = Rows(features[:90]), Rank(1.0, K)
    folds = [np.arange(0, 40), np.arange(40, 90)]
    maps = SHORT[one].held_out(rows, SHAPE, folds, few)
    assert maps.shape == (90, 4, 4)
    expected = refit_maps(SHORT[one], rows, SHAPE, folds, few)
    np.testing.assert_allclose(maps, expected, rtol=1e-4)
    # In a fold of its own, a row changes nothing about how the others are seen.
    moved = features[:90].copy()
    moved[3] += 100
    again = SHORT[one].held_out(Rows(moved), SHAPE, folds, few)
    np.testing.assert_allclose(again[1:3], maps[1:3], rtol=1e-4)
    assert again[3].mean() > 10 * maps[3].mean()


@pytest.mark.parametrize("one", SHORT)
def test_held_out_rows_may_be_shown_as_another_backbone_sees_them(one, features):
    rows, few = Rows(features[:90]), Rank(1.0, K)
    folds = [np.arange(0, 40), np.arange(40, 90)]
    noise = np.random.default_rng(1).normal(size=(90, SHAPE.dimension)).astype(np.float32)
    shown = Rows(features[:90] + noise)
    maps = SHORT[one].held_out(rows, SHAPE, folds, few, shown)
    expected = refit_maps(SHORT[one], rows, SHAPE, folds, few, shown)
    np.testing.assert_allclose(maps, expected, rtol=1e-4)
    assert not np.allclose(maps, SHORT[one].held_out(rows, SHAPE, folds, few), rtol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_is_refused(name, features, value):
    bad = features.copy()
    bad[17, 40] = value
    with pytest.raises(DataError, match="non-finite value .in 1 of 128 columns, the first is 40"):
        STRATEGIES[name].fit(Rows(bad), Rank(0.9))


@pytest.mark.parametrize("one", SHORT)
def test_constant_columns_do_no_harm(one, features):
    flat = features.copy()
    flat[:, 100:110] = 7.5
    subspace = SHORT[one].fit(Rows(flat), Rank(1.0, K))
    np.testing.assert_allclose(subspace.components[:, 100:110], 0, atol=1e-5)
    np.testing.assert_allclose(subspace.residuals(flat)[:, 100:110], 0, atol=1e-3)


def test_rows_that_do_not_vary_are_refused(name):
    with pytest.raises(DataError, match="zero variance"):
        STRATEGIES[name].fit(Rows(np.full((5, 100), 3.25, np.float32)), Rank(0.9))


@pytest.mark.parametrize(("rows", "rank", "message"), [
    (1, Rank(0.9), "1 rows of features; at least 2"),
    (8, Rank(0.9, 8), "8 components asked for, 8 images give at most 7"),
])  # fmt: skip
def test_too_few_rows_are_refused(name, features, rows, rank, message):
    with pytest.raises(DataError, match=message):
        STRATEGIES[name].fit(Rows(features[:rows]), rank)


@pytest.mark.parametrize("one", PCA_ONLY)
@pytest.mark.parametrize("rank", [Rank(1.0), Rank(1.0, 30)])
def test_more_components_than_the_rank_leave_nothing(one, rank):
    rng = np.random.default_rng(0)
    thin = (rng.normal(size=(50, 3)) @ rng.normal(size=(3, 128))).astype(np.float32)
    subspace = STRATEGIES[one].fit(Rows(thin), rank)
    assert len(subspace.components) <= 49
    assert np.isfinite(subspace.components).all()
    assert captured(thin, subspace) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("one", ["tied-ae", "ae", "incremental", "randomized"])
def test_finds_the_principal_subspace(one, features, fits):
    """Where the spectrum has a gap behind k: all principal angles are small."""
    gap = features.copy()
    gap += 30 * (features - features.mean(0)) @ fits["pca"].components.T @ fits["pca"].components
    exact, found = (STRATEGIES[s].fit(Rows(gap), Rank(1.0, K)) for s in ("pca", one))
    found_span = np.linalg.qr((found.components if found.decoder is None else found.decoder).T)[0]
    sines = np.linalg.norm(found_span - exact.components.T @ (exact.components @ found_span), 2)
    assert sines < (1e-5 if one == "incremental" else 0.02)
