"""Our metrics against independent ones: scikit-learn, and AUPRO by brute force."""

import numpy as np
import pytest
from scipy.ndimage import label as connected
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from fre_runtime.metrics import PixelMetrics, auroc, average_precision, f1_max


@pytest.fixture(params=[(0, 200, None), (1, 50, 1), (2, 7, None)])
def scored(request):
    seed, count, digits = request.param
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3 == 0
    scores = rng.normal(size=count) + labels
    return (scores if digits is None else scores.round(digits)), labels


def test_image_metrics_equal_sklearn(scored):
    scores, labels = scored
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(scores, labels) == pytest.approx(
        average_precision_score(labels, scores)
    )
    best = max(f1_score(labels, scores >= tau) for tau in np.unique(scores))
    assert f1_max(scores, labels) == pytest.approx(best)


def test_one_class_alone_has_no_figure():
    assert np.isnan(auroc(np.arange(3.0), np.zeros(3, bool)))
    assert np.isnan(average_precision(np.arange(3.0), np.zeros(3, bool)))


@pytest.fixture(params=[0, 1, 2])
def maps_and_masks(request):
    rng = np.random.default_rng(request.param)
    maps, masks = [], []
    for i in range(6):
        mask = np.zeros((40, 50), bool)
        if i % 3:
            mask[5:12, 5:20] = True
            mask[30:34, 40:42] = True
        maps.append((rng.gamma(2, 1, mask.shape) + 1.5 * mask).astype(np.float32))
        masks.append(mask)
    return maps, masks


def brute_force_aupro(maps, masks, limit=0.3):
    regions = []
    for anomaly_map, mask in zip(maps, masks, strict=True):
        labels, count = connected(mask, structure=np.ones((3, 3)))
        regions += [anomaly_map[labels == i + 1] for i in range(count)]
    good = np.concatenate([m[~mask] for m, mask in zip(maps, masks, strict=True)])
    thresholds = np.quantile(np.concatenate([m.ravel() for m in maps]), np.linspace(1, 0, 4000))
    fpr = np.array([0.0] + [(good >= t).mean() for t in thresholds])
    pro = np.array([0.0] + [np.mean([(r >= t).mean() for r in regions]) for t in thresholds])
    inside = fpr < limit
    x = np.append(fpr[inside], limit)
    y = np.append(pro[inside], np.interp(limit, fpr, pro))
    return np.trapezoid(y, x) / limit


def test_pixel_metrics_equal_independent_ones(maps_and_masks):
    maps, masks = maps_and_masks
    metrics = PixelMetrics()
    for anomaly_map, mask in zip(maps, masks, strict=True):
        metrics.add(anomaly_map, mask)
    truth, values = (
        np.concatenate([m.ravel() for m in masks]),
        np.concatenate([m.ravel() for m in maps]),
    )
    assert metrics.auroc() == pytest.approx(roc_auc_score(truth, values), abs=1e-4)
    assert metrics.aupro() == pytest.approx(brute_force_aupro(maps, masks), abs=2e-3)


def test_perfect_and_useless_maps():
    mask = np.zeros((20, 20), bool)
    mask[4:9, 4:9] = True
    perfect, useless = PixelMetrics(), PixelMetrics()
    perfect.add(mask.astype(np.float32) + 1, mask)
    useless.add(np.ones((20, 20), np.float32), mask)
    assert (perfect.auroc(), perfect.aupro()) == pytest.approx((1, 1))
    assert useless.auroc() == pytest.approx(0.5)
    assert useless.aupro() == pytest.approx(0.15)


def test_without_masks_there_is_no_figure():
    metrics = PixelMetrics()
    metrics.add(np.ones((5, 5), np.float32), np.zeros((5, 5), bool))
    assert np.isnan(metrics.auroc())
    assert np.isnan(metrics.aupro())
