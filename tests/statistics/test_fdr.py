import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from ood.conformal import ConformalCalibration
from ood.fdr import benjamini_hochberg, largest_batch_for_lone_outlier


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.5))
def test_it_selects_as_scipys_adjusted_p_values(p_values, rate):
    p = np.array(p_values)
    adjusted = false_discovery_control(p)
    clear = np.abs(adjusted - rate) > 1e-9
    np.testing.assert_array_equal(benjamini_hochberg(p, rate)[clear], (adjusted <= rate)[clear])


def test_an_empty_batch_selects_nothing():
    assert benjamini_hochberg(np.empty(0), 0.1).shape == (0,)


@pytest.mark.parametrize("outliers", [0, 2, 20])
def test_false_discoveries_stay_under_the_rate(outliers):
    """Over 2,000 batches of 100 images and as many calibration sets of 999."""
    rng = np.random.default_rng(outliers)
    proportions = []
    for _ in range(2_000):
        fitted = ConformalCalibration(np.sort(rng.normal(size=999)))
        scores = rng.normal(size=100)
        scores[:outliers] += 4
        found = benjamini_hochberg(fitted.p_values(scores), 0.1)
        proportions.append(found[outliers:].sum() / max(found.sum(), 1))
    error = np.std(proportions) / np.sqrt(len(proportions))
    assert np.mean(proportions) <= 0.1 + 3 * error


def test_a_lone_outlier_is_found_up_to_the_stated_batch_and_not_beyond():
    n, rate = 999, 0.1
    largest = largest_batch_for_lone_outlier(rate, n)
    assert largest == 100
    for size, expected in ((largest, True), (largest + 1, False)):
        p = np.full(size, 0.9)
        p[0] = 1 / (n + 1)
        assert benjamini_hochberg(p, rate)[0] == expected
