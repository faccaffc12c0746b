import math
import time

import numpy as np
import pytest
from scipy.stats import beta, binom

from ood.conditional import (
    METHODS,
    conditional_p_values,
    dkw_bounds,
    monte_carlo_bounds,
    safe_quantile,
    simes_bounds,
)
from ood.conformal import ConformalCalibration


def uniform_sets(n: int, draws: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).uniform(size=(draws, n)), axis=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 3, 20, 201, 1000])
def test_the_bounds_hold_for_95_percent_of_calibration_sets(method, n):
    bounds = METHODS[method](n, 0.05)
    assert bounds.shape == (n,)
    assert (np.diff(bounds) >= 0).all()
    assert bounds[0] > 0
    assert bounds[-1] <= 1
    draws = 4_000
    held = (uniform_sets(n, draws, seed=n) <= bounds).all(axis=1).sum()
    assert held >= binom.ppf(0.001, draws, 0.95)


def test_monte_carlo_bounds_are_not_looser_than_they_must_be():
    draws = 20_000
    held = (uniform_sets(200, draws, seed=1) <= monte_carlo_bounds(200, 0.05)).all(axis=1).sum()
    assert binom.ppf(0.001, draws, 0.95) <= held <= 0.965 * draws


@pytest.mark.parametrize("method", METHODS)
def test_bounds_a_fifth_narrower_are_too_narrow(method):
    """The positive control: the simulation above can fail."""
    bounds = METHODS[method](200, 0.05)
    mean = np.arange(1, 201) / 201
    held = (uniform_sets(200, 10_000, seed=2) <= mean + 0.8 * (bounds - mean)).all(axis=1).mean()
    assert held < 0.95


def test_simes_bounds_by_its_products():
    n, delta = 21, 0.1
    k = n // 2
    expected = [1 - (delta * math.perm(i, k) / math.perm(n, k)) ** (1 / k) for i in range(n, 0, -1)]
    np.testing.assert_allclose(simes_bounds(n, delta), expected)


def test_one_uniform_number_has_exact_bounds():
    """With n = 1 the right bound is 1 - delta."""
    assert simes_bounds(1, 0.1) == pytest.approx([0.9])
    assert monte_carlo_bounds(1, 0.1) == pytest.approx([0.9], abs=0.015)


def test_bounds_exceed_what_holds_for_each_rank_alone():
    n = 100
    alone = beta.ppf(0.95, np.arange(1, n + 1), n - np.arange(n))
    for bounds in METHODS.values():
        assert (bounds(n, 0.05) >= alone - 1e-12).all()


@pytest.mark.parametrize("method", METHODS)
def test_p_values_given_the_calibration_set_are_valid_at_every_level(method):
    """From scores to adjusted p-values: exact error of each set at each level, ties included."""
    n, draws = 100, 2_000
    rng = np.random.default_rng(3)
    bounds = METHODS[method](n, 0.05)
    values = np.arange(40)
    above = 1 - np.cumsum(np.full(40, 1 / 40)) + 1 / 40  # P(score >= value), of 40 equal ones
    valid = 0
    for _ in range(draws):
        fitted = ConformalCalibration(np.sort(rng.integers(0, 40, n)).astype(np.float32))
        adjusted = conditional_p_values(fitted.p_values(values), bounds)
        valid += bool((above <= adjusted + 1e-12).all())  # P(p <= a) <= a at each jump a
    assert valid >= binom.ppf(0.001, draws, 0.95)


def test_p_values_are_mapped_rank_by_rank():
    bounds = dkw_bounds(9, 0.05)
    p = np.arange(1, 11) / 10
    np.testing.assert_array_equal(conditional_p_values(p, bounds), [*bounds, 1.0])
    assert (conditional_p_values(p, bounds) >= p).all()
    assert conditional_p_values(p[:0], bounds).shape == (0,)
    for wrong in (0.05, 0.0, 1.1, np.nan):
        with pytest.raises(ValueError, match="9 calibration images"):
            conditional_p_values(np.array([wrong]), bounds)


def test_one_sided_dkw_needs_a_small_delta():
    with pytest.raises(ValueError, match="delta <= 1/2"):
        dkw_bounds(10, 0.6)


def test_simulated_bounds_are_cached_and_cannot_be_changed():
    start = time.process_time()
    bounds = monte_carlo_bounds(4_000, 0.05)
    assert time.process_time() - start < 2
    assert monte_carlo_bounds(4_000, 0.05) is bounds
    with pytest.raises(ValueError, match="read-only"):
        bounds[0] = 0


def test_every_category_keeps_its_bounds():
    """By class, forty sizes take turns."""
    sizes = range(201, 241)
    first = [monte_carlo_bounds(n) for n in sizes]
    assert all(monte_carlo_bounds(n) is bounds for n, bounds in zip(sizes, first, strict=True))


def test_the_quantile_is_high_enough_in_nearly_all_simulations():
    simulated = np.random.default_rng(4).uniform(size=(4_000, 500))
    found = np.array([safe_quantile(row, 0.9) for row in simulated])
    assert (found < 0.9).sum() <= binom.ppf(0.999, 4_000, 0.001)
    assert safe_quantile(np.arange(3.0), 0.95) == 2
