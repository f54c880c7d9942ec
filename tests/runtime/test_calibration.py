"""The scale of the scores, and its inverse."""

import numpy as np
import pytest

from fre_runtime.calibration import Threshold

THRESHOLDS = [Threshold(0.03, 1.0), Threshold(250.0, 0.2), Threshold(1e-6, 3.0)]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_raw_undoes_calibrated(threshold):
    raw = threshold.value * np.array([0, 0.1, 0.9, 1, 1.1, 3])
    assert threshold.raw(threshold.calibrated(raw)) == pytest.approx(raw, rel=1e-6)
    assert threshold.calibrated(np.array(threshold.value)) == 0.5


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_value_that_has_rounded_to_one_is_finite_and_above_all_others(threshold):
    largest = np.nextafter(np.float32(1), np.float32(0))
    below, one = threshold.raw(np.array([largest, 1], np.float32))
    assert threshold.value < below < one < np.inf
    assert np.float32(threshold.calibrated(one)) == 1


def test_no_number_stays_none():
    assert np.isnan(THRESHOLDS[0].raw(np.array(np.nan, np.float32)))
