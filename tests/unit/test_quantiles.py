import numpy as np
import pytest
from scipy.stats import kstest, norm

from ood.quantiles import BEYOND, COARSE_LEVELS, LEVELS, QuantileTable


@pytest.mark.parametrize("levels", [LEVELS, COARSE_LEVELS])
def test_p_values_are_the_shares_of_brute_force(levels):
    rng = np.random.default_rng(0)
    seen, asked = rng.normal(size=(5000, 3)), rng.normal(size=(400, 3))
    table = QuantileTable.fit(seen, levels)
    upper = (seen[None] >= asked[:, None]).mean(axis=1)
    lower = (seen[None] <= asked[:, None]).mean(axis=1)
    inside = np.minimum(upper, lower) > 1e-3
    np.testing.assert_allclose(table.upper(asked)[inside], upper[inside], atol=0.02)
    np.testing.assert_allclose(table.lower(asked)[inside], lower[inside], atol=0.02)


def test_p_values_of_new_numbers_are_uniform():
    rng = np.random.default_rng(1)
    table = QuantileTable.fit(rng.gamma(2, size=(20_000, 1)))
    new = rng.gamma(2, size=(3_000, 1))
    assert kstest(table.upper(new)[:, 0], "uniform").pvalue > 0.01
    assert kstest(table.two_sided(new)[:, 0], "uniform").pvalue > 0.01


def test_beyond_everything_seen_p_values_go_on_falling():
    table = QuantileTable.fit(np.random.default_rng(2).normal(size=(999, 1)))
    far = table.upper(np.array([[4.0], [5.0], [8.0], [50.0]]))[:, 0]
    assert (np.diff(far) < 0).all() and far[0] <= 1 / 1000 and far[-1] > 0
    assert 1e-8 < table.upper(np.array([[norm.isf(1e-5)]]))[0, 0] < 1e-3


@pytest.mark.parametrize("levels", [LEVELS, COARSE_LEVELS])
@pytest.mark.parametrize("n", [30, 999, 50_000])
def test_only_beyond_all_numbers_seen_is_p_below_that_of_the_largest(n, levels):
    """Between the two largest one number is still at least as large."""
    seen = np.sort(np.random.default_rng(3).gamma(2, size=(n, 1)), axis=0).astype(np.float32)
    table = QuantileTable.fit(seen, levels)
    largest = float(seen[-1, 0])
    asked = np.array([[seen[-2, 0]], [(seen[-2, 0] + largest) / 2], [largest], [1.01 * largest]])
    for p in (table.upper(asked), table.two_sided(asked) / 2):
        assert (p[:, 0] * (n + 1) < BEYOND).tolist() == [False, False, False, True]
    below = table.lower(np.array([[seen[1, 0]], [seen[0, 0]], [seen[0, 0] - 0.1]]))[:, 0]
    assert (below * (n + 1) < BEYOND).tolist() == [False, False, True]


def test_many_equal_numbers_are_no_surprise():
    """Channels behind a ReLU are zero most of the time."""
    seen = np.concatenate([np.zeros(900), np.linspace(1, 2, 100)])[:, None]
    table = QuantileTable.fit(seen)
    assert table.two_sided(np.array([[0.0]]))[0, 0] == 1
    assert table.upper(np.array([[1.5]]))[0, 0] == pytest.approx(0.05, abs=0.01)
    assert table.lower(np.array([[-0.1]]))[0, 0] <= 1 / 1001


@pytest.mark.parametrize("n", [1, 2, 3, 10])
def test_few_numbers_give_finite_tables(n):
    table = QuantileTable.fit(np.arange(n, dtype=float)[:, None])
    p = table.two_sided(np.array([[-1.0], [0.0], [n / 2], [1e9], [-1e9]]))
    assert np.isfinite(p).all() and (p >= 0).all() and (p <= 1).all()
    assert p[1, 0] > p[3, 0]
