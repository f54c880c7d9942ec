import time

import numpy as np
import pytest

from fre_runtime.latency import (
    MIN_FRAMES,
    PAIR_BLOCK,
    Measurement,
    measure_latency,
    measure_pair,
    measure_throughput,
)


def wait(milliseconds):
    return lambda: time.sleep(milliseconds / 1e3)


def test_percentiles_of_known_times():
    measured = Measurement(np.arange(1.0, 101.0), 2.0)
    latency = measured.latency()
    assert measured.fps == 50
    assert latency["median"] == pytest.approx(50.5)
    assert latency["p99"] == pytest.approx(99.01)
    assert latency["max"] == 100


def test_measures_at_least_the_minimum_of_frames():
    measured = measure_latency(wait(1), 0.001)
    assert len(measured.milliseconds) >= MIN_FRAMES
    assert measured.milliseconds.min() >= 1


def test_parallel_calls_finish_more_frames():
    one, four = (measure_throughput(wait(5), 0.2, n) for n in (1, 4))
    assert four.fps > 2 * one.fps


def test_the_paired_ratio_finds_the_slower_one():
    pair = measure_pair(wait(2), wait(4), 0.1)
    assert len(pair.ours.milliseconds) == len(pair.theirs.milliseconds)
    assert len(pair.ours.milliseconds) % PAIR_BLOCK == 0
    ratio = pair.ratio
    assert ratio["low"] <= ratio["median"] <= ratio["high"]
    assert 0.3 < ratio["median"] < 0.9
