import numpy as np
import pytest
from scipy.stats import binom, kstest

from ood.exchangeability import _wealth
from ood.monitoring.coins import coin
from ood.monitoring.drift import OWN_COINS, Drift


def watched(calibration, values, seed=0):
    drift = Drift(calibration, seed)
    for value in values:
        drift.observe(value)
    return drift


def p_values(calibration, values, seed=0):
    drift = Drift(calibration, seed)
    return np.array([drift._p_value(value) for value in values])


@pytest.mark.parametrize("kinds", [1, 3, 40, 10**6])
def test_p_values_by_counting(kinds):
    """Brute force: ranks of pairs of value and chance, by chance among those of one cell."""
    rng = np.random.default_rng(kinds)
    calibration, values = rng.integers(0, kinds, 30), rng.integers(-2, kinds + 2, 40)
    edges = list(zip(calibration, np.random.default_rng(5).uniform(size=30), strict=True))
    cells, expected = [], []
    for i, value in enumerate(values):
        cells.append(sum(edge < (value, coin(5 ^ OWN_COINS, 2 * i)) for edge in edges))
        larger = 30 - cells[-1] + sum(cell > cells[-1] for cell in cells)
        ties = cells.count(cells[-1])
        expected.append((larger + coin(5 ^ OWN_COINS, 2 * i + 1) * ties) / (31 + i))
    np.testing.assert_allclose(p_values(calibration, values, 5), expected)


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_p_values_are_uniform_and_independent(decimals):
    rng = np.random.default_rng(1)
    drawn = rng.normal(size=(4_000, 15)).round(decimals)
    p = np.array([p_values(row[:10], row[10:], seed) for seed, row in enumerate(drawn)])
    for image in range(5):
        assert kstest(p[:, image], "uniform").pvalue > 0.001
    correlations = np.corrcoef(p.T)[~np.eye(5, dtype=bool)]
    assert abs(correlations).max() < 4 / np.sqrt(len(p))


def test_the_wealth_is_the_simple_jumpers():
    rng = np.random.default_rng(2)
    calibration, values = rng.normal(size=200), rng.normal(0.5, size=300)
    expected = np.log(_wealth(p_values(calibration, values)))
    drift = watched(calibration, values)
    assert drift.log_wealth == pytest.approx(expected[-1], abs=1e-9)
    assert drift.log_peak == pytest.approx(max(0, expected.max()), abs=1e-9)


def test_the_detectors_are_all_later_starts_added_up_and_the_best_of_them():
    """Brute force over starts: the factors from each image on."""
    rng = np.random.default_rng(3)
    calibration, values = rng.normal(size=100), rng.normal(size=60)
    path = _wealth(p_values(calibration, values))
    from_each = path[-1] / np.concatenate([[1.0], path[:-1]])
    drift = watched(calibration, values)
    assert drift.log_e_sr == pytest.approx(np.log(from_each.sum()))
    assert drift.log_e_cusum == pytest.approx(np.log(from_each.max()))


def false_alarms(draws, m, n, decimals, seed):
    rng = np.random.default_rng(seed)
    return sum(
        watched(rng.normal(size=n).round(decimals), rng.normal(size=m).round(decimals), k).log_peak
        >= np.log(10)
        for k in range(draws)
    )


@pytest.mark.parametrize("decimals", [9, 0])
def test_false_alarms_are_rare(decimals):
    assert false_alarms(200, 300, 300, decimals, seed=4) <= binom.ppf(0.999, 200, 0.1)


def test_against_fixed_calibration_images_it_would_alarm_falsely():
    """The control: the same bets, on ranks among 100 calibration images only."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(40):
        calibration = np.sort(rng.normal(size=100))
        ranks = 100 - np.searchsorted(calibration, rng.normal(size=2_000))
        wrong += _wealth((ranks + rng.uniform(size=2_000)) / 101).max() >= 10
    assert wrong > 12


@pytest.mark.parametrize("reading", ["log_e_sr", "log_e_cusum"])
def test_the_average_run_length(reading):
    """At 1 / rate = 30; runs are cut at 400, which makes them shorter."""
    rng, lengths = np.random.default_rng(6), []
    for k in range(100):
        drift = Drift(rng.normal(size=200), k)
        while getattr(drift, reading) < np.log(30) and drift.images < 400:
            drift.observe(rng.normal())
        lengths.append(drift.images)
    assert np.mean(lengths) + 2 * np.std(lengths) / np.sqrt(100) > 30


def test_a_late_change_is_noticed_and_sooner_by_the_detectors():
    rng = np.random.default_rng(7)
    delays = {"log_wealth": [], "log_e_sr": [], "log_e_cusum": []}
    for k in range(10):
        drift = watched(rng.normal(size=1_000), rng.normal(size=1_500), k)
        values = rng.normal(0.7, size=800)
        found = dict.fromkeys(delays, 800)
        for after, value in enumerate(values):
            drift.observe(value)
            for name in delays:
                if getattr(drift, name) >= np.log(1_000):
                    found[name] = min(found[name], after)
        for name in delays:
            delays[name].append(found[name])
    median = {name: np.median(found) for name, found in delays.items()}
    assert median["log_e_sr"] <= median["log_e_cusum"] < 200
    assert median["log_e_cusum"] <= median["log_wealth"]


def test_predicted_classes_that_become_more_frequent_are_noticed():
    rng = np.random.default_rng(8)
    calibration = rng.integers(0, 10, 2_000)
    assert watched(calibration, rng.integers(0, 10, 600)).log_peak < np.log(100)
    assert watched(calibration, rng.integers(5, 10, 600)).log_peak > np.log(1_000)


def test_a_stored_one_goes_on_bit_for_bit_and_takes_no_more_memory():
    rng = np.random.default_rng(9)
    calibration, values = rng.normal(size=5_000), rng.normal(size=400)
    first, second = watched(calibration, values[:200], 3), Drift(calibration, 0)
    size = sum(value.nbytes for value in Drift(calibration, 3).state().values())
    second.restore(first.state())
    for value in values[200:]:
        first.observe(value)
        second.observe(value)
    for name, value in first.state().items():
        np.testing.assert_array_equal(value, second.state()[name])
    assert sum(value.nbytes for value in first.state().values()) == size < 30_000


def test_degenerate_values():
    same = watched(np.zeros(50), np.zeros(300))
    assert same.log_peak < np.log(20)
    extreme = watched(np.arange(100_000.0), np.full(3_000, np.inf))
    assert extreme.log_wealth > 900  # and its exponential is no number
    assert np.isfinite([extreme.log_wealth, extreme.log_e_sr, extreme.log_e_cusum]).all()
    with pytest.raises(ValueError, match="undefined"):
        extreme.observe(np.nan)
    assert extreme.images == 3_000
    for calibration in (np.empty(0), np.array([0.0, np.nan])):
        with pytest.raises(ValueError, match="at least one"):
            Drift(calibration, 0)
