import dataclasses

import numpy as np
import pytest

from fre_runtime.conformal import calibrate
from fre_runtime.drift import SHARES, DriftOptions, DriftWatch, quantiles, upper_bound
from fre_runtime.errors import UsageError

SPREAD = 0.3
"""Standard deviation of log S, as measured on real parts."""


def good(rng, count):
    return np.exp(SPREAD * rng.normal(size=count))


@pytest.fixture(scope="module")
def calibration():
    scores = good(np.random.default_rng(0), 300)
    return calibrate(scores, scores, np.arange(300), 0.01, 5, "these")


def feed(watch, scores):
    """Number of the score that gave alarm; None if none did."""
    for number, score in enumerate(scores, 1):
        if watch.update(score).drifting:
            return number
    return None


def test_quantiles_of_the_histogram_are_those_of_the_scores(calibration):
    scores = good(np.random.default_rng(0), 300)
    shares = np.array([0.1, 0.5, 0.9])
    found = quantiles(calibration.held_out, shares)
    np.testing.assert_allclose(found, np.quantile(scores, shares), rtol=0.03)


def test_good_parts_with_some_defects_give_no_alarm(calibration):
    rng = np.random.default_rng(1)
    scores = good(rng, 10_000)
    scores[rng.random(10_000) < 0.05] = 50.0
    assert feed(DriftWatch(calibration), scores) is None


def test_false_alarms_are_no_more_often_than_promised(calibration):
    """The worst that is no drift: each share of the held-out scores at its largest."""
    # Half of the evidence is the live reference's, which has none here.
    watch = DriftWatch(calibration, DriftOptions(false_alarm_every=50, warm_up=0))
    rng = np.random.default_rng(2)
    known = upper_bound(np.array(SHARES), 300)
    no_drift = known + 0.05 * (1 - known)
    assert (no_drift > np.array(SHARES) + 0.05).all()
    quarter, median = quantiles(calibration.held_out, np.array([0.25, 0.5]))
    upper = quantiles(calibration.held_out, 1 - np.array(SHARES))
    levels = [(quarter + median) / 2, *(1.0001 * upper)]
    count, alarms = 30_000, 0
    for u in rng.random(count):
        beyond = int((u < no_drift).sum())
        if watch.update(levels[beyond]).drifting:
            alarms += 1
            watch.reset()
    assert count / 1000 < alarms <= 1.1 * count / (2 * 50)


def test_scores_below_the_held_out_ones_of_an_export_are_no_drift(calibration):
    """Folds see fewer photos than the model, so their scores lie high."""
    rng = np.random.default_rng(5)
    assert feed(DriftWatch(calibration), 0.8 * good(rng, 3000)) is None
    own = dataclasses.replace(calibration, folds=0)
    watch = DriftWatch(own)
    assert feed(watch, 0.8 * good(rng, 3000)) is not None
    assert watch.state.direction == "lower"


@pytest.mark.parametrize(("factor", "direction"), [(1.35, "higher"), (0.75, "lower")])
def test_a_shift_of_one_spread_is_found_soon(calibration, factor, direction):
    delays = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        watch = DriftWatch(calibration)
        assert feed(watch, good(rng, 500)) is None
        delays.append(feed(watch, factor * good(rng, 500)))
        assert watch.state.direction == direction
    assert np.median(delays) < 130


def test_the_alarm_comes_before_the_false_rejects(calibration):
    """Scores that creep up by a tenth of a percent each."""
    tau = calibration.image.value
    before = []
    for seed in range(10):
        scores = good(np.random.default_rng(seed), 2000) * np.exp(0.001 * np.arange(2000))
        alarm = feed(DriftWatch(calibration), scores)
        before.append((scores[:alarm] > tau).mean())
        assert (scores[alarm : alarm + 500] > tau).mean() > 0.05  # what the alarm was for
    assert np.mean(before) < 0.03


def test_more_defects_than_expected_are_drift(calibration):
    rng = np.random.default_rng(3)
    scores = good(rng, 2000)
    scores[rng.random(2000) < 0.3] = 50.0
    assert feed(DriftWatch(calibration), scores) is not None
    assert feed(DriftWatch(calibration, DriftOptions(defects=0.4)), scores) is None


def test_state_and_reset(calibration):
    watch = DriftWatch(calibration, DriftOptions(warm_up=0, recovery=0))
    assert watch.state.scores == 0
    assert watch.state.evidence == 0
    for _ in range(200):
        state = watch.update(9.0)
    assert state.drifting
    assert (state.direction, state.evidence, state.above_median) == ("higher", 1.0, 1.0)
    for _ in range(2000):  # an alarm stays
        state = watch.update(9.0)
    assert state.scores == 2200
    for score in good(np.random.default_rng(4), 10_000):
        state = watch.update(score)
    assert state.drifting
    assert state.evidence < 1
    watch.reset()
    assert watch.state == DriftWatch(calibration).state


@pytest.mark.parametrize("drifted", [1000, 5000])
@pytest.mark.parametrize("factor", [1.35, 0.75, 5.0])
def test_an_alarm_ends_soon_after_its_cause_however_long_it_lasted(calibration, factor, drifted):
    rng = np.random.default_rng(6)
    watch = DriftWatch(calibration)
    assert feed(watch, good(rng, 500)) is None
    for score in factor * good(rng, drifted):
        state = watch.update(score)
    assert state.drifting
    drifting = [watch.update(score).drifting for score in good(rng, 1500)]
    over = drifting.index(False)
    assert 200 <= over < 600
    assert not any(drifting[over:])
    assert feed(watch, factor * good(rng, 500)) is not None  # and it can come again


def test_what_drifts_from_the_first_score_on_is_no_reference(calibration):
    rng = np.random.default_rng(7)
    watch = DriftWatch(calibration)
    assert feed(watch, 2 * good(rng, 100)) is not None
    for score in 2 * good(rng, 300):  # longer than the warm-up
        watch.update(score)
    drifting = [watch.update(score).drifting for score in good(rng, 3000)]
    over = drifting.index(False)
    assert not any(drifting[over:])  # nor do good parts seem to be lower than the first ones


def test_scores_that_are_no_number_or_of_the_same_part_are_passed_over(calibration):
    watch = DriftWatch(calibration, DriftOptions(every=5))
    for _ in range(50):
        watch.update(float("nan"))
        watch.update(1.0)
    assert watch.state.scores == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DriftOptions(false_alarm_every=1), "false_alarm_every must be above 1"),
        (DriftOptions(defects=0.5), "defects must lie in 0..0.5"),
        (DriftOptions(warm_up=5), "warm_up must be 0 or at least 20"),
        (DriftOptions(every=0), "every must be at least 1"),
        (DriftOptions(recovery=-1), "recovery must be at least 0"),
    ],
)
def test_misuse(calibration, options, message):
    with pytest.raises(UsageError, match=message):
        DriftWatch(calibration, options)


def test_a_calibration_on_few_parts_cannot_tell(calibration):
    few = dataclasses.replace(calibration, scenes=19)
    with pytest.raises(UsageError, match="19 different parts, drift can be told from 20 on"):
        DriftWatch(few)
