import time

import numpy as np
import pytest

from fre_runtime.latency import (
    MIN_FRAMES,
    PAIR_BLOCK,
    Budget,
    Measurement,
    measure_latency,
    measure_pair,
    measure_stream,
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


def test_measures_until_time_and_count_are_reached():
    measured = measure_latency(wait(1), Budget(0.001, frames=40))
    assert len(measured.milliseconds) == 40
    assert measured.milliseconds.min() >= 1
    assert measure_latency(wait(1), Budget(0.1, frames=1)).seconds >= 0.1


def test_gives_the_count_up_after_the_cap_but_not_the_least_frames():
    budget = Budget(0.001, frames=10_000, cap=0.002)
    measured = measure_latency(wait(1), budget)
    assert len(measured.milliseconds) == MIN_FRAMES
    samples = measured.samples(budget)
    assert (samples["wanted"], samples["reached"]) == (10_000, False)
    assert samples["margin"] == pytest.approx(2.5758 * (0.09 / MIN_FRAMES) ** 0.5, rel=1e-4)


def test_a_cap_below_the_duration_changes_nothing():
    assert measure_latency(wait(1), Budget(0.1, frames=1, cap=0.01)).seconds >= 0.1


def test_stages_are_medians_of_what_calls_tell():
    said = iter([1.0, 2.0, 9.0] * 100)
    measured = measure_latency(lambda: {"resize": next(said)}, Budget(0, frames=30))
    assert measured.stage_medians() == {"resize": 2.0}
    assert measure_latency(wait(0), Budget(0, frames=30)).stage_medians() is None


def test_a_stream_is_timed_by_its_stages_and_fed_until_the_budget_is_spent():
    measured = measure_stream(
        lambda ticks: ({"a": 1.0, "b": 2.0} for _ in ticks), wait(0), Budget(0, frames=50)
    )
    assert list(measured.milliseconds) == [3.0] * 50
    assert measured.stage_medians() == {"a": 1.0, "b": 2.0}


def test_throughput_keeps_the_order_of_time():
    measured = measure_throughput(wait(1), Budget(0.05, frames=1), 2)
    assert measured.machine is not None
    assert len(measured.milliseconds) >= MIN_FRAMES


def test_parallel_calls_finish_more_frames():
    one, four = (measure_throughput(wait(5), Budget(0.2, frames=1), n) for n in (1, 4))
    assert four.fps > 2 * one.fps


def test_the_paired_ratio_finds_the_slower_one():
    pair = measure_pair(wait(2), wait(4), Budget(0.1, frames=1))
    assert len(pair.ours.milliseconds) == len(pair.theirs.milliseconds)
    assert len(pair.ours.milliseconds) % PAIR_BLOCK == 0
    ratio = pair.ratio
    assert ratio["low"] <= ratio["median"] <= ratio["high"]
    assert 0.3 < ratio["median"] < 0.9
