import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from ood.conformal import ConformalCalibration
from ood.fdr import (
    benjamini_hochberg,
    conformal_e_values,
    e_benjamini_hochberg,
    largest_batch_for_lone_outlier,
    storey,
)


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


def batch(rng, outliers: int, m=100, n=999, shift=4.0):
    """(m,) scores, outliers first, and (n,) ascending calibration scores."""
    scores = rng.normal(size=m)
    scores[:outliers] += shift
    return scores, np.sort(rng.normal(size=n))


def false_proportion(found: np.ndarray, outliers: int) -> float:
    return found[outliers:].sum() / max(found.sum(), 1)


def assert_at_most(values, rate: float):
    assert np.mean(values) <= rate + 3 * np.std(values) / np.sqrt(len(values))


@given(st.lists(st.floats(0, 1), max_size=40), st.floats(0.01, 0.5))
def test_storey_by_trying_every_threshold(p_values, rate):
    p = np.array(p_values)
    pi0 = (1 + (p >= 0.5).sum()) / (len(p) / 2) if len(p) else 1
    passing = [
        t for t in p if t < 0.5 and pi0 * len(p) * t <= rate * (p <= t).sum() * (1 - 1e-9)
    ]  # clear of rounding
    touching = [t for t in p if t < 0.5 and pi0 * len(p) * t <= rate * (p <= t).sum() * (1 + 1e-9)]
    found = storey(p, rate)
    if passing == touching:
        np.testing.assert_array_equal(found, p <= max(passing, default=-1))


@pytest.mark.parametrize("n", [20, 21, 999])
@pytest.mark.parametrize("outliers", [0, 5, 40])
def test_false_discoveries_of_storey_stay_under_the_rate(n, outliers):
    """Also for few calibration images, where an even n costs a factor 1 + 1/n."""
    rng = np.random.default_rng(n + outliers)
    proportions = []
    for _ in range(2_000):
        scores, calibration = batch(rng, outliers, n=n)
        found = storey(ConformalCalibration(calibration).p_values(scores), 0.2)
        proportions.append(false_proportion(found, outliers))
    assert_at_most(proportions, 0.2 * (1 + (n % 2 == 0) / n))


def test_storey_cut_off_at_one_exceeds_the_rate():
    """Why pi0 is not cut off: independent uniform p-values, no outlier, few images."""
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(40_000, 8))
    pi0 = (1 + (p >= 0.5).sum(axis=1)) / 4
    for cut, exceeds in ((np.minimum(pi0, 1), True), (pi0, False)):
        best = np.sort(np.where(p < 0.5, p, np.inf), axis=1) / np.arange(1, 9)
        wrong = (best.min(axis=1) <= 0.2 / cut / 8).mean()
        assert (wrong > 0.2 + 3 * np.sqrt(0.16 / 40_000)) == exceeds


def test_storey_finds_more_where_much_is_unknown():
    rng = np.random.default_rng(1)
    scores, calibration = batch(rng, 60, shift=2.0)
    p = ConformalCalibration(calibration).p_values(scores)
    assert storey(p, 0.1).sum() > benjamini_hochberg(p, 0.1).sum()
    assert storey(np.empty(0), 0.1).shape == (0,)


@pytest.mark.parametrize("rate", [0.07, 0.1, 0.2])
def test_e_values_of_one_detector_select_as_its_p_values(rate):
    rng = np.random.default_rng(2)
    for outliers in (0, 1, 10):
        for _ in range(50):
            scores, calibration = batch(rng, outliers)
            scores, calibration = scores.round(1), calibration.round(1)  # ties
            p = ConformalCalibration(calibration).p_values(scores)
            np.testing.assert_array_equal(
                e_benjamini_hochberg(conformal_e_values(scores, calibration, rate), rate),
                benjamini_hochberg(p, rate),
            )


@pytest.mark.parametrize("n", [15, 300])
def test_e_values_of_known_images_sum_to_at_most_the_batch(n):
    rng = np.random.default_rng(n)
    sums = []
    for _ in range(8_000):
        scores, calibration = batch(rng, 5, m=30, n=n, shift=2.0)
        sums.append(conformal_e_values(scores, calibration, 0.3)[5:].sum())
    assert_at_most(sums, 30)
    assert np.mean(sums) > 5  # not by being zero


def test_a_threshold_from_the_batch_alone_makes_no_e_values():
    """The positive control: e = 1 / (the largest selected p) sums to more than the batch."""
    rng = np.random.default_rng(4)
    sums = []
    for _ in range(20_000):
        scores, calibration = batch(rng, 0, m=5, n=5)
        p = ConformalCalibration(calibration).p_values(scores)
        found = benjamini_hochberg(p, 0.9)
        sums.append(found.sum() / p[found].max() if found.any() else 0)
    assert np.mean(sums) > 5 + 5 * np.std(sums) / np.sqrt(len(sums))


def test_averaged_e_values_of_two_detectors_keep_the_rate():
    rng = np.random.default_rng(5)
    proportions, power = [], []
    for _ in range(1_000):
        first, calibration = rng.normal(size=100), rng.normal(size=999)
        first[:10] += 4
        second = first * 0.6 + 0.8 * rng.normal(size=100)  # dependent, as on the same images
        others = calibration * 0.6 + 0.8 * rng.normal(size=999)
        e = conformal_e_values(first, np.sort(calibration), 0.05)
        e = (e + conformal_e_values(second, np.sort(others), 0.05)) / 2
        found = e_benjamini_hochberg(e, 0.1)
        proportions.append(false_proportion(found, 10))
        power.append(found[:10].mean())
    assert_at_most(proportions, 0.1)
    assert np.mean(power) > 0.2


def test_e_benjamini_hochberg_by_its_definition():
    rng = np.random.default_rng(6)
    for _ in range(100):
        e = np.where(rng.uniform(size=30) < 0.5, 0, rng.exponential(40, size=30))
        k = max((k for k in range(1, 31) if np.sort(e)[-k] >= 30 / (0.1 * k)), default=0)
        expected = np.zeros(30, bool)
        expected[np.argsort(-e)[:k]] = True
        np.testing.assert_array_equal(e_benjamini_hochberg(e, 0.1), expected)


def test_degenerate_e_values():
    assert conformal_e_values(np.empty(0), np.arange(9.0), 0.1).shape == (0,)
    assert not conformal_e_values(np.zeros(5), np.arange(9.0), 0.1).any()
    assert not e_benjamini_hochberg(np.zeros(5), 0.1).any()
    assert e_benjamini_hochberg(np.empty(0), 0.1).shape == (0,)
    assert e_benjamini_hochberg(np.full(3, np.inf), 0.1).all()
