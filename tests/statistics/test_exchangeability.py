import itertools
import time

import numpy as np
import pytest
from scipy.stats import binom, kstest

from ood.exchangeability import ALARM, _growing_p_values, _wealth, check_exchangeability


def test_growing_p_values_by_counting():
    rng = np.random.default_rng(0)
    calibration, scores = np.sort(rng.integers(0, 9, 30)), rng.integers(0, 9, 40)  # many ties
    chance = np.random.default_rng(0).uniform(size=40)
    expected = []
    for i, score in enumerate(scores):
        seen = np.concatenate([calibration, scores[: i + 1]])
        expected.append(((seen > score).sum() + chance[i] * (seen == score).sum()) / len(seen))
    np.testing.assert_allclose(_growing_p_values(scores, calibration), expected)


def test_growing_p_values_are_uniform_and_independent():
    """Of five images after ten calibration scores: there fixed ranks are clearly dependent."""
    rng = np.random.default_rng(1)
    drawn = rng.normal(size=(8_000, 15))
    p = np.array([_growing_p_values(row[10:], np.sort(row[:10])) for row in drawn])
    # One seed breaks the ties of one batch; over batches a new number must do so.
    image = np.arange(5)
    p += (rng.uniform(size=p.shape) - np.random.default_rng(0).uniform(size=5)) / (11 + image)
    for image in range(5):
        assert kstest(p[:, image], "uniform").pvalue > 0.001
    correlations = np.corrcoef(p.T)[~np.eye(5, dtype=bool)]
    assert abs(correlations).max() < 4 / np.sqrt(len(p))
    fixed = [(drawn[:, :10] > drawn[:, [k]]).sum(axis=1) for k in (10, 11)]
    assert np.corrcoef(fixed)[0, 1] > 0.05  # the positive control


def test_wealth_is_the_mean_over_all_paths_of_the_jumper():
    """Brute force over 3^5 paths of the Markov chain of bets."""
    p = np.array([0.02, 0.9, 0.1, 0.5, 0.01])
    stay, jump = 0.99 + 0.01 / 3, 0.01 / 3
    expected = 0.0
    for path in itertools.product([-1, 0, 1], repeat=5):
        chance = np.prod([stay if a == b else jump for a, b in itertools.pairwise(path)]) / 3
        expected += chance * np.prod(1 + np.array(path) * (p - 0.5))
    assert _wealth(p)[-1] == pytest.approx(expected, rel=1e-12)


def test_wealth_is_fair():
    """On average over p in a fine grid, the next wealth is the present one."""
    grid = (np.arange(1_000) + 0.5) / 1_000
    now = _wealth(np.array([0.1, 0.2]))[-1]
    after = [_wealth(np.array([0.1, 0.2, p]))[-1] for p in grid]
    assert np.mean(after) == pytest.approx(now, rel=1e-9)


def alarms(shift: float, draws: int, seed: int, m=300, n=1_000, decimals=9) -> int:
    rng = np.random.default_rng(seed)
    return sum(
        check_exchangeability(
            rng.normal(shift, size=m).round(decimals), np.sort(rng.normal(size=n)).round(decimals),
            0.05,
        ).alarm
        for _ in range(draws)
    )  # fmt: skip


@pytest.mark.parametrize("decimals", [9, 0])
def test_false_alarms_are_rare(decimals):
    assert alarms(0.0, 1_000, seed=2, decimals=decimals) <= binom.ppf(0.999, 1_000, 0.05)


def test_a_shift_is_noticed():
    assert alarms(0.5, 50, seed=3) >= 45
    assert alarms(-0.5, 50, seed=4) >= 45


def test_without_cutting_the_calibration_scores_it_alarms_falsely():
    """The positive control: unflagged images against all calibration images."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(50):
        calibration, scores = np.sort(rng.normal(size=1_000)), rng.normal(size=1_000)
        kept = scores[scores < calibration[-200]]
        wrong += (_wealth(_growing_p_values(kept, calibration)) >= ALARM).any()
    assert wrong > 25


def test_flagged_images_are_left_out():
    rng = np.random.default_rng(6)
    calibration, scores = np.sort(rng.normal(size=999)), rng.normal(size=200)
    outlying = np.insert(scores, [0, 50, 200], 99.0)
    alone, beside = (check_exchangeability(s, calibration, 0.05) for s in (scores, outlying))
    assert alone.images == beside.images == (scores < calibration[-50]).sum()
    np.testing.assert_array_equal(alone.wealth, beside.wealth)


def test_degenerate_batches():
    calibration = np.arange(9.0)
    for scores in (np.empty(0), np.full(5, 99.0)):
        nothing = check_exchangeability(scores, calibration, 0.2)
        assert (nothing.images, nothing.alarm) == (0, False)
    few = check_exchangeability(np.full(3, 99.0), calibration, 0.05)  # too few to flag any
    assert few.images == 3
    same = check_exchangeability(np.zeros(200), np.zeros(200), 0.05)  # all tied with the threshold
    assert same.images == 0


def test_thousands_of_equally_odd_images_do_not_overflow_into_nan():
    assert _wealth(np.zeros(5_000))[-1] == np.inf


def test_it_is_fast():
    rng = np.random.default_rng(8)
    start = time.process_time()
    check_exchangeability(rng.normal(size=1_000), np.sort(rng.normal(size=10_000)), 0.05)
    assert time.process_time() - start < 0.2
