import numpy as np
import pytest

from fre_runtime.conformal import calibrate, conformal_quantile


def test_singletons_give_the_split_conformal_quantile():
    values = np.random.default_rng(0).permutation(np.arange(1.0, 100.0))  # 99 values
    found = conformal_quantile(values, np.arange(99), 0.05)
    assert found.value == 95.0  # ceil(100 * 0.95) = 95th smallest
    assert found.fpr == 0.05


def test_too_few_scenes_give_the_largest_score_and_the_honest_rate():
    values = np.arange(1.0, 20.0)
    found = conformal_quantile(values, np.arange(19), 0.01)
    assert found.value == 19.0
    assert found.fpr == pytest.approx(1 / 20)


def test_groups_count_once_however_many_photos_they_have():
    values = np.concatenate([np.arange(1.0, 100.0), np.full(500, 1000.0)])
    groups = np.concatenate([np.arange(99), np.full(500, 99)])
    assert conformal_quantile(values, groups, 0.05).value < 100
    assert conformal_quantile(values, np.arange(599), 0.05).value == 1000.0


@pytest.mark.parametrize("fpr", [0.05, 0.2])
@pytest.mark.parametrize("shots", [1, 4])
def test_new_good_parts_are_rejected_at_most_at_the_target_rate(fpr, shots):
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        parts = np.repeat(rng.normal(size=60), shots) + 0.3 * rng.normal(size=60 * shots)
        tau = conformal_quantile(np.exp(parts), np.repeat(np.arange(60), shots), fpr).value
        fresh = np.exp(rng.normal(size=200) + 0.3 * rng.normal(size=200))
        rates.append((fresh > tau).mean())
    assert np.mean(rates) <= fpr + 0.01
    assert np.mean(rates) >= fpr - 0.05


def test_the_histogram_holds_every_score():
    scores = np.random.default_rng(0).gamma(3.0, size=50)
    held_out = calibrate(scores, scores, np.arange(50), 0.05, 5, "these").held_out
    assert sum(held_out.counts) == 50
    assert (held_out.low, held_out.high) == pytest.approx((scores.min(), scores.max()))
