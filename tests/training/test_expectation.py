"""What error is expected of a good photo."""

import dataclasses

import numpy as np
import pytest
import torch

from fre_edge import fit
from fre_edge.expectation import BLANK, CLIP, Expectation, Expected, Looks, fit_expectation, look
from fre_edge.features import FeatureShape
from fre_edge.strategies.base import Rank, Rows
from fre_edge.strategies.pca import Pca

SHAPE = FeatureShape(3, 4, 4)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    gains = rng.lognormal(0, 0.5, (40, 1))
    return (gains * rng.normal(size=(40, 48)) * np.geomspace(3, 0.2, 48)).astype(np.float32)


def looks_of(features):
    return look(features, SHAPE, [Pca().fit(Rows(features), Rank(0.8))])


def test_contrast_scales_with_the_photo_and_ignores_its_mean(features):
    brighter = features + np.repeat(np.float32([1, 5, -3]), 16)
    contrasts = looks_of(features).contrasts
    np.testing.assert_allclose(looks_of(brighter).contrasts, contrasts, rtol=1e-5)
    np.testing.assert_allclose(looks_of(features * 3).contrasts, 3 * contrasts, rtol=1e-6)
    by_hand = features[7].reshape(3, 16)
    by_hand = by_hand - by_hand.mean(1, keepdims=True)
    assert contrasts[7] == pytest.approx(np.sqrt(np.square(by_hand).mean()))


def test_scores_that_follow_contrast_and_coordinates_become_alike(features):
    looks = looks_of(features)
    t = looks.coordinates / looks.coordinates.std(0)
    scores = looks.contrasts * np.exp(0.4 * t[:, 0].clip(-CLIP, CLIP))
    folds = np.arange(40) % 5
    expectation, expected = fit_expectation(scores, looks, folds, 40)
    # A penalty as heavy as the photos, and half as much again for 40 scenes: 1 / 2.5 is believed.
    assert expectation.weights[0] == pytest.approx(0.4 / 2.5, abs=0.05)
    assert np.abs(expectation.weights[1:]).max() < 0.03
    spread = np.log(scores).std(), np.log(scores / expected).std()
    assert spread[1] < 0.75 * spread[0]


def test_a_photo_has_no_part_in_what_is_expected_of_it(features):
    looks, folds = looks_of(features), np.arange(40) % 5
    scores = looks.contrasts.copy()
    _, expected = fit_expectation(scores, looks, folds, 40)
    scores[folds == 2] *= np.linspace(1, 9, 8)
    _, changed = fit_expectation(scores, looks, folds, 40)
    np.testing.assert_array_equal(changed[folds == 2], expected[folds == 2])
    assert (changed[folds != 2] != expected[folds != 2]).all()


def test_the_graph_expects_what_was_fitted(features):
    subspace = Pca().fit(Rows(features), Rank(0.8))
    looks = look(features, SHAPE, [subspace])
    expectation, _ = fit_expectation(looks.contrasts**1.3, looks, np.arange(40) % 5, 40)
    by_contrast = np.clip(looks.contrasts / expectation.contrast, BLANK, expectation.most)
    t = np.clip(looks.coordinates / expectation.deviations, -CLIP, CLIP)
    wanted = by_contrast * np.exp(t @ expectation.weights)
    code = torch.from_numpy((features - subspace.mean) @ subspace.components.T) / 2
    module = Expected(expectation, torch.full((code.shape[1],), 2.0))
    got = module(torch.from_numpy(features).reshape(-1, *SHAPE), code)
    assert got.shape == (40, 1)
    np.testing.assert_allclose(got[:, 0], wanted, rtol=1e-5)


def test_a_blank_photo_is_no_division_by_zero(features):
    looks = looks_of(features)
    expectation, _ = fit_expectation(looks.contrasts, looks, np.arange(40) % 5, 40)
    module = Expected(expectation, torch.ones(20))
    got = module(torch.zeros(1, *SHAPE), torch.zeros(1, 20))
    assert got.item() == pytest.approx(BLANK)


def test_contrast_counts_up_to_the_largest_of_good_photos(features):
    looks, folds = looks_of(features), np.arange(40) % 5
    contrasts = looks.contrasts.copy()
    contrasts[7] = 9 * contrasts.max()  # in fold 2
    flat = Looks(contrasts, np.zeros((40, 0)))
    expectation, expected = fit_expectation(contrasts, flat, folds, 40)
    assert expectation.most == pytest.approx(contrasts[7] / np.median(contrasts))
    others = contrasts[folds != 2].max() / np.median(contrasts)
    assert expected[7] == pytest.approx(others)  # as a new photo of such a contrast would count
    module = Expected(expectation, torch.ones(20))
    bright = torch.from_numpy(features[:1].reshape(-1, *SHAPE)) * 1e4
    assert module(bright, torch.zeros(1, 20)).item() == pytest.approx(expectation.most, rel=1e-6)


@torch.inference_mode()
def test_glare_does_not_excuse_a_defect(tiny_fit):
    """The defect stays, and more and more of what can be reconstructed well is added to it."""
    expectation, subspace = tiny_fit.expectation, tiny_fit.subspaces[0][0]
    glare = subspace.components[0].astype(np.float64)
    defect = np.random.default_rng(0).normal(size=len(glare))
    rows = subspace.components.astype(np.float64)
    defect -= rows.T @ (rows @ defect)
    defect *= np.linalg.norm(subspace.mean) / np.linalg.norm(defect)
    strengths = np.array([0, 1, 10, 100, 1000]) * np.linalg.norm(subspace.mean)
    photos = subspace.mean + defect + strengths[:, None] * glare
    head = tiny_fit.head()

    def scores(module):
        layers = [torch.from_numpy(photos.astype(np.float32)).reshape(-1, *tiny_fit.shapes[0])]
        layers += [torch.zeros(len(photos), *shape) for shape in tiny_fit.shapes[1:]]
        return module.raw(layers)[0].numpy()

    limit = expectation.most * np.exp(CLIP * np.abs(expectation.weights).sum())
    alone = dataclasses.replace(tiny_fit, expectation=None).head()
    assert (scores(head) >= 0.99 * scores(alone) / limit).all()
    assert limit < 20
    endless = expectation._replace(most=float("inf"))
    before = scores(dataclasses.replace(tiny_fit, expectation=endless).head())
    assert before[-1] < 0.02 * scores(head)[-1]  # what the limit is for


@pytest.mark.parametrize("folds", [np.zeros(4, np.int64), np.arange(4)])
def test_features_without_spread_or_change_expect_the_same_of_all(folds):
    looks = Looks(np.zeros(4), np.zeros((4, 2)))
    expectation, expected = fit_expectation(np.arange(1.0, 5), looks, folds, 1)
    assert expectation == Expectation(0.0, 1.0, (0.0, 0.0), (0.0, 0.0))
    np.testing.assert_array_equal(expected, 1)
    got = Expected(expectation, torch.ones(3))(torch.zeros(2, 3, 1, 1), torch.ones(2, 3))
    assert got.tolist() == [[1], [1]]


@torch.inference_mode()
def test_without_it_errors_are_plain(tiny_fit, category):
    plain = fit(category, dataclasses.replace(tiny_fit.options, relative=False))
    assert plain.expectation is None
    image = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    relative, features = tiny_fit.module(), plain.extractor()(image)
    code = relative.head.layers[0](features[0])[1]
    expected = relative.head.expected(features[0], code)
    for ours, theirs, shape in zip(
        plain.module().raw(image), relative.raw(image), [(2,), (2, 1, 1, 1)], strict=True
    ):
        torch.testing.assert_close(ours, theirs * expected.reshape(shape))


@pytest.mark.parametrize("kind", ["local", "regions"])
def test_parts_have_contrast_alone(kind, tiny_fit, category):
    fitted = fit(category, dataclasses.replace(tiny_fit.options, subspace=kind))
    assert fitted.expectation.contrast > 0
    assert fitted.expectation.weights == ()
