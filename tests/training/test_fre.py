import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fre_edge.features import FeatureShape
from fre_edge.fre import Reconstruction
from fre_edge.fusion import Fuse, Fusion
from fre_edge.options import SCORES
from fre_edge.scores import image_scores
from fre_edge.strategies.base import Rank, gram
from fre_edge.strategies.pca import fit_pca
from fre_runtime.calibration import Threshold
from fre_runtime.errors import UsageError
from fre_runtime.image import read_image, resize

SHAPE = FeatureShape(6, 4, 4)


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(30, 96)) * np.geomspace(5, 0.1, 96) + 1).astype(np.float32)


def test_the_error_map_is_the_residual_of_the_paper(features):
    subspace = fit_pca(features, *gram(features), Rank(1.0, 7))
    u = features[3].astype(np.float64)
    w, mu = subspace.components.astype(np.float64), subspace.mean.astype(np.float64)
    residual = (np.eye(96) - w.T @ w) @ (u - mu)
    expected = np.square(residual.reshape(6, 16)).sum(0)
    got, _ = Reconstruction(subspace, SHAPE)(torch.from_numpy(features[3:4]).reshape(1, 6, 4, 4))
    assert got.shape == (1, 16)
    np.testing.assert_allclose(got[0].sum(), expected.sum(), rtol=1e-2)  # W in 8 bits
    np.testing.assert_allclose(got[0], expected, rtol=0.1, atol=0.01 * expected.max())


def test_eight_bits_still_project(features):
    """Along each row of the rounded W nothing is left: its length is taken from what was kept."""
    module = Reconstruction(fit_pca(features, *gram(features), Rank(1.0, 1)), SHAPE)
    row = module.components.float()
    left, code = module((module.mean + 3 * row).reshape(1, 4, 4, 6).permute(0, 3, 1, 2))
    assert code.item() * module.units.item() == pytest.approx(3 * row.norm().item(), rel=1e-2)
    assert left.sum() < 1e-10 * row.square().sum()


def projector(subspace, *, rounded):
    """W^T W in float64, of W as it was fitted or with each row rounded to 8 bits."""
    w = subspace.components
    if not rounded:
        return w.astype(np.float64).T @ w.astype(np.float64)
    q = in_8_bits(w)
    return (q / np.square(q).sum(1, keepdims=True)).T @ q


def in_8_bits(w):
    """Each row of W in its own steps, float64."""
    step = np.abs(w).max(1, keepdims=True) / np.float32(127)
    q = np.round(w / step).astype(np.float64)
    assert np.abs(q).max() == 127
    return q * step


def by_hand(fitted, features, *, rounded):
    """S and M of README's equations in float64, for a score of p3, over what is expected."""
    scores, maps = [], []
    for u, shape, (subspace,), mean, map_weight, score_weight in zip(
        features, fitted.shapes, fitted.subspaces, *fitted.fusion, strict=True
    ):
        x = u.numpy().reshape(len(u), -1).astype(np.float64) - subspace.mean.astype(np.float64)
        error = x - x @ projector(subspace, rounded=rounded)
        m = np.square(error).reshape(len(u), *shape).sum(1) / shape.channels
        assert mean > 0
        scores.append(score_weight * np.power(m, 3).mean((1, 2)) ** (1 / 3))
        lifted = F.interpolate(torch.from_numpy(m)[:, None], (8, 8), mode="bilinear")
        maps.append(map_weight * lifted.numpy())
    expected = expected_by_hand(fitted, features[0].numpy().astype(np.float64), rounded)
    return np.mean(scores, 0) / expected, np.mean(maps, 0) / expected[:, None, None, None]


def expected_by_hand(fitted, u, rounded):
    """E of `fre_edge.expectation`."""
    e, subspace = fitted.expectation, fitted.subspaces[0][0]
    contrast = u.reshape(*u.shape[:2], -1).std(2)  # of each channel
    w = subspace.components[:5]
    t = (u.reshape(len(u), -1) - subspace.mean) @ (in_8_bits(w) if rounded else w).T / e.deviations
    relative = np.sqrt(np.square(contrast).mean(1)) / e.contrast
    return relative.clip(0.1, e.most) * np.exp(t.clip(-2.5, 2.5) @ e.weights)


@pytest.fixture(scope="module")
def photos(category):
    paths = sorted((category / "test").rglob("*.png"))
    return torch.from_numpy(np.stack([resize(read_image(path), 64, 64) for path in paths]))


@torch.inference_mode()
def test_the_module_is_the_paper_with_w_rounded_to_8_bits(tiny_fit, photos):
    module = tiny_fit.module()
    expected = by_hand(tiny_fit, module.extractor(photos), rounded=True)
    for got, wanted in zip(module.raw(photos), expected, strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * wanted.max())


@torch.inference_mode()
def test_rounding_w_hardly_moves_the_score(tiny_fit, photos):
    module = tiny_fit.module()
    exact, _ = by_hand(tiny_fit, module.extractor(photos), rounded=False)
    moved = np.abs(module.raw(photos)[0].numpy() / exact - 1)
    assert 0 < moved.max() < 0.02


def one_layer(maps, score):
    cells = maps.flatten(1)
    return image_scores(cells, [cells.shape[1]], score)[:, 0]


@pytest.mark.parametrize("score", SCORES)
def test_scores_grow_with_each_cell_of_the_map(score):
    maps = torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    base = one_layer(maps, score)
    for cell in range(9):
        more = maps.clone()
        more.view(-1)[cell] += 1.0
        assert one_layer(more, score) > base


def test_scores_match_their_definitions():
    m = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    assert one_layer(m, "sum").item() == 10
    assert one_layer(m, "max").item() == 4
    assert one_layer(m, "p2").item() == pytest.approx(np.sqrt(30 / 4))
    assert one_layer(m, "p3").item() == pytest.approx((100 / 4) ** (1 / 3))
    with pytest.raises(UsageError, match="'mean' does not exist; choose p3"):
        one_layer(m, "mean")


@pytest.mark.parametrize("score", SCORES)
def test_layers_are_scored_by_themselves(score):
    cells = torch.rand(3, 20, generator=torch.Generator().manual_seed(0))
    got = image_scores(cells, [16, 4], score)
    torch.testing.assert_close(got[:, 0], image_scores(cells[:, :16], [16], score)[:, 0])
    torch.testing.assert_close(got[:, 1], image_scores(cells[:, 16:], [4], score)[:, 0])


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_scores_neither_overflow_nor_underflow(score, scale):
    energies = torch.rand(1, 64, generator=torch.Generator().manual_seed(0))
    shape = FeatureShape(5, 8, 8)
    expected = image_scores(energies.double() / 5, [64], score)[:, 0] * scale
    fuse = Fuse([shape], Fusion((scale,), (1.0,), (1.0,)), score).float()
    got, maps = fuse([energies * scale])
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(maps, energies * scale / 5, rtol=1e-5)


def test_layers_are_averaged_in_units_of_their_own_mean():
    shapes = [FeatureShape(3, 4, 4), FeatureShape(7, 2, 2)]
    energies = [torch.full((1, 16), 6.0 * 3), torch.full((1, 4), 50.0 * 7)]
    fusion = Fusion((2.0, 10.0), (1 / 2, 1 / 10), (1 / 32, 1 / 40))
    score, lifted = Fuse(shapes, fusion, "sum").float()(energies)
    assert score.item() == pytest.approx((96 / 32 + 200 / 40) / 2)
    torch.testing.assert_close(lifted, torch.full((1, 16), 4.0))


def test_coarse_maps_are_lifted_bilinearly():
    shapes = [FeatureShape(1, 4, 6), FeatureShape(1, 2, 3)]
    generator = torch.Generator().manual_seed(0)
    fine, coarse = (
        torch.rand(2, 1, 4, 6, generator=generator),
        torch.rand(2, 1, 2, 3, generator=generator),
    )
    one = (1.0, 1.0)
    _, lifted = Fuse(shapes, Fusion(one, one, one), "sum").float()(
        [fine.flatten(1), coarse.flatten(1)]
    )
    expected = (fine + F.interpolate(coarse, (4, 6), mode="bilinear")) / 2
    torch.testing.assert_close(lifted.reshape(2, 1, 4, 6), expected)


def test_half_is_the_threshold(tiny_fit, category):
    image = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    raw, raw_map = tiny_fit.module().raw(image)
    for factor, label in ((0.999, True), (1.001, False)):
        calibration = dataclasses.replace(
            tiny_fit.calibration,
            image=Threshold(raw.item() * factor, 0.7),
            pixel=Threshold(raw_map.max().item() * factor, 0.7),
        )
        module = dataclasses.replace(tiny_fit, calibration=calibration).module()
        score, got, anomaly_map, mask = module(image)
        assert bool(got) is label
        assert bool(mask.any()) is label
        assert score.item() == pytest.approx(0.5, abs=1e-3)
        assert anomaly_map.max().item() == pytest.approx(0.5, abs=1e-3)


def test_calibrated_scores_follow_the_formula(tiny_fit):
    image = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    module = tiny_fit.module()
    raw, raw_map = module.raw(image)
    score, _, anomaly_map, _ = module(image)
    calibration = tiny_fit.calibration
    np.testing.assert_allclose(score, calibration.image.calibrated(raw.numpy()), atol=1e-5)
    np.testing.assert_allclose(
        anomaly_map, calibration.pixel.calibrated(raw_map.numpy()), atol=1e-5
    )
    np.testing.assert_allclose(calibration.image.raw(score.numpy()), raw, rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_feature_that_is_not_finite_gives_nan_and_is_never_good(tiny_fit, monkeypatch, value):
    module = tiny_fit.module()
    features = [torch.zeros(2, *shape) for shape in tiny_fit.shapes]
    features[1][1, 0, 1, 1] = value
    monkeypatch.setattr(module.extractor, "forward", lambda _: features)
    score, label, *_ = module(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert torch.isfinite(score[0])
    assert torch.isnan(score[1])
    assert bool(label[1])
