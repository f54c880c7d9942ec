import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from fre_runtime.bootstrap import _figures, image_intervals, percentile_interval, wilson
from fre_runtime.metrics import PixelMetrics, auroc, average_precision, f1_max


def photos(seed, good=200, bad=150, ties=False):
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0, 1, good), rng.normal(1, 1, bad)])
    labels = np.arange(good + bad) >= good
    return (np.round(scores, 1) if ties else scores), labels


@pytest.mark.parametrize("ties", [False, True])
def test_figures_of_a_resample_are_those_of_the_photos_it_drew(ties):
    scores, labels = photos(1, 40, 30, ties)
    values, place = np.unique(-scores, return_inverse=True)
    rng = np.random.default_rng(2)
    rows = []
    for _ in range(20):
        drawn = [rng.choice(np.flatnonzero(labels == label), 25) for label in (False, True)]
        chosen = np.concatenate(drawn)
        counts = [np.bincount(place[part], minlength=len(values)) for part in drawn]
        found = _figures(*(count[None] for count in counts))[:, 0]
        rows.append(found)
        of = scores[chosen], labels[chosen]
        np.testing.assert_allclose(found, [auroc(*of), average_precision(*of), f1_max(*of)])
    assert np.std(rows, axis=0).min() > 0


def test_image_intervals_are_as_wide_as_the_figure_varies_from_data_set_to_data_set():
    varies = np.std([auroc(*photos(seed)) for seed in range(300)])
    scores, labels = photos(1000)
    intervals = image_intervals(scores, labels)
    low, high = intervals["image_auroc"]
    assert low < auroc(scores, labels) < high
    assert (high - low) / (2 * 1.96) == pytest.approx(varies, rel=0.2)
    assert intervals == image_intervals(scores, labels)
    assert intervals["image_ap"].low < average_precision(scores, labels)
    assert intervals["image_f1_max"].high > f1_max(scores, labels)


def test_blocks_change_nothing_but_memory(monkeypatch):
    scores, labels = photos(3, 20, 20)
    whole = image_intervals(scores, labels)["image_auroc"]
    monkeypatch.setattr("fre_runtime.bootstrap.BLOCK", 1000)
    blocks = image_intervals(scores, labels)["image_auroc"]
    np.testing.assert_allclose(whole, blocks, atol=0.01)


@pytest.mark.parametrize("labels", [[False] * 4, [True] * 4, [False, False, False, True]])
def test_no_interval_from_fewer_than_two_photos_of_a_class(labels):
    assert image_intervals(np.arange(4.0), np.array(labels)) == {}


@pytest.mark.parametrize(("hits", "total"), [(0, 20), (20, 20), (1, 1), (7, 93)])
def test_wilson_equals_scipy(hits, total):
    expected = binomtest(hits, total).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(hits, total), [expected.low, expected.high], atol=1e-12)


def test_pixel_figures_vary_as_in_a_bootstrap_over_images():
    rng = np.random.default_rng(0)
    images = []
    for i in range(12):
        mask = np.zeros((16, 16), bool)
        if i % 2:
            mask[2:6, 2 : 4 + i] = True
        images.append((np.exp(rng.normal(mask * (i / 6), 1)).astype(np.float32), mask))
    plain, resampling = PixelMetrics(), PixelMetrics(replicates=300)
    for image in images:
        plain.add(*image)
        resampling.add(*image)
    assert (plain.auroc(), plain.aupro()) == (resampling.auroc(), resampling.aupro())
    areas, pros = resampling.resampled()
    assert percentile_interval(areas).low < plain.auroc() < percentile_interval(areas).high
    assert percentile_interval(pros).low < plain.aupro() < percentile_interval(pros).high

    values = np.concatenate([m.ravel() for m, _ in images])
    truth = np.concatenate([m.ravel() for _, m in images])
    weights = rng.poisson(1, (300, len(images))).repeat(16 * 16, axis=1)
    weights = weights[(weights[:, truth] > 0).any(1)]
    by_hand = [roc_auc_score(truth, values, sample_weight=row) for row in weights]
    assert np.nanstd(areas) == pytest.approx(np.std(by_hand), rel=0.2)
    assert np.nanmean(areas) == pytest.approx(np.mean(by_hand), abs=0.01)


def test_values_beyond_the_resampled_range_still_count():
    metrics = PixelMetrics(replicates=50)
    mask = np.zeros((8, 8), bool)
    mask[:2] = True
    metrics.add(np.where(mask, np.float32(np.inf), np.float32(0)), mask)
    areas, _ = metrics.resampled()
    assert set(areas[~np.isnan(areas)]) == {1.0}
