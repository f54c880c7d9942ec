from fractions import Fraction
from math import comb

import numpy as np
import pytest

from fre_runtime.harness.confidence import (
    interval_ranks,
    margin_of,
    minimum_frames,
    quantile_interval,
)


def binomial(n, q):
    return [comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(n + 1)]


@pytest.mark.parametrize("n", [1, 2, 5, 6, 10, 30, 31, 100])
@pytest.mark.parametrize("q", [Fraction(1, 2), Fraction(9, 10), Fraction(99, 100)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_ranks_against_brute_force(n, q, confidence):
    chance = binomial(n, q)
    tail = (1 - confidence) / 2
    lows = [rank for rank in range(1, n + 1) if sum(chance[:rank]) <= tail]
    highs = [rank for rank in range(1, n + 1) if sum(chance[rank:]) <= tail]
    expected = (max(lows, default=0), min(highs, default=n + 1))
    assert interval_ranks(n, float(q), confidence) == expected


def test_the_known_interval_of_a_median_of_ten():
    low, high = quantile_interval(np.arange(10.0, 0, -1))  # the textbook's: ranks 2 and 9, 97.9%
    assert (low, high) == (2, 9)


def test_ends_that_too_few_frames_cannot_bound():
    assert quantile_interval(np.arange(5.0)) == (None, None)
    low, high = quantile_interval(np.arange(100.0), 0.99)
    assert low is not None
    assert high is None


def test_covers_the_true_median_as_often_as_promised():
    draws = np.random.default_rng(0).exponential(size=(2000, 35))
    ends = np.array([quantile_interval(row) for row in draws])
    covered = np.mean((ends[:, 0] <= np.log(2)) & (np.log(2) <= ends[:, 1]))
    assert 0.94 < covered < 0.98


def test_many_frames_stay_exact_enough():
    low, high = interval_ranks(100_000, 0.5, 0.95)
    assert low + high == 100_001
    assert (high - low) / 2 == pytest.approx(1.96 * 100_000**0.5 / 2, rel=0.01)


def test_minimum_frames():
    assert minimum_frames() == 1493
    assert minimum_frames(margin=0.005) == 23_886  # the number in MLPerf's rules
    assert minimum_frames(0.99, 0.0005) == 262_742  # and there, for its 99th percentile
    assert margin_of(1493) <= 0.02 < margin_of(1492)


def test_the_minimum_keeps_its_promise():
    n = minimum_frames()
    shares = np.random.default_rng(0).binomial(n, 0.9, 20_000) / n
    assert np.mean(np.abs(shares - 0.9) <= 0.02) == pytest.approx(0.99, abs=0.003)
