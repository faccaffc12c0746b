import numpy as np
import pytest
from scipy.stats import beta, binom, kstest

from models.bank import Bank
from ood.combination import COMBINATIONS
from ood.conformal import ConformalCalibration, largest_rank, rank_interval
from ood.decision import Verdict, decide, flagging_rank
from ood.detectors import DETECTORS


def calibrated(scores) -> ConformalCalibration:
    return ConformalCalibration(np.sort(np.asarray(scores, np.float32)))


def test_p_values_by_counting():
    rng = np.random.default_rng(0)
    known, new = rng.integers(0, 20, 50), rng.integers(-5, 25, 200)  # many ties
    found = calibrated(known).p_values(new.astype(np.float32))
    expected = [(1 + sum(known >= score)) / 51 for score in new]
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("n", [19, 99, 100, 1000])
@pytest.mark.parametrize("level", [0.01, 0.05, 0.1])
def test_the_promise_holds_in_simulation(n, level):
    """P(p <= a) <= a, and >= a - 1/(n+1) without ties, over calibration sets and new images."""
    rng = np.random.default_rng(n)
    draws = 20_000
    ranks = (rng.standard_normal((draws, n)) >= rng.standard_normal((draws, 1))).sum(axis=1)
    flagged = ((1 + ranks) / (n + 1) <= level).sum()
    expected = largest_rank(level, n) / (n + 1)
    assert level - 1 / (n + 1) <= expected <= level
    low, high = binom.ppf([0.0005, 0.9995], draws, expected)
    assert low <= flagged <= high


def test_discrete_scores_stay_within_the_level():
    rng = np.random.default_rng(1)
    flagged = np.mean(
        [
            calibrated(rng.poisson(2, 200)).p_values(rng.poisson(2, 1).astype(np.float32))[0]
            <= 0.05
            for _ in range(5_000)
        ]
    )
    assert flagged <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 5_000)


@pytest.mark.parametrize("name", [*COMBINATIONS, *DETECTORS])
def test_p_values_of_held_out_known_images_are_uniform(demo, name):
    """Calibrated on seven eighths of the calibration images, tested on the rest, by a fixed seed;
    one in a thousand may miss by chance."""
    scores = demo.calibration_scores[name]
    order = np.random.default_rng(0).permutation(len(scores))
    fitted = calibrated(scores[order[:3500]])
    assert kstest(fitted.p_values(scores[order[3500:]]), "uniform").pvalue > 0.001


def test_scores_of_the_fit_set_are_a_threshold_that_fails(demo, demo_inspection, fashion_test):
    """The positive control: what the types forbid flags over twice as many as it says."""
    rows = np.arange(0, len(demo.calibration.images), 3)
    bank = Bank(demo.calibration.images.take(rows), demo.bank.head)
    detector = DETECTORS["layers"].fit(bank, None)
    own = detector.score(bank.images.activations)
    known = detector.score(demo_inspection.activations.take(np.flatnonzero(fashion_test[2])))
    assert (calibrated(own).p_values(known) <= 0.05).mean() > 0.1


@pytest.mark.parametrize("level", [0.001, 0.01, 0.05, 0.5])
def test_the_threshold_says_the_same_as_the_p_value(level):
    rng = np.random.default_rng(2)
    fitted = calibrated(rng.normal(size=199))
    scores = np.concatenate([rng.normal(size=500), fitted.scores]).astype(np.float32)
    np.testing.assert_array_equal(
        fitted.p_values(scores) <= level, scores > fitted.threshold(level)
    )


def test_levels_at_the_edge_of_rounding():
    assert largest_rank(0.05, 19) == 1
    assert largest_rank(0.05, 18) == 0
    assert largest_rank(0.1, 99) == 10
    assert flagging_rank(0.05, 18) == 0
    assert calibrated(np.arange(18)).threshold(0.05) == np.inf


def test_the_realised_interval_covers_95_percent_of_calibration_sets():
    rng = np.random.default_rng(3)
    n, level = 200, 0.05
    low, high = rank_interval(largest_rank(level, n), n)
    sets = np.sort(rng.uniform(size=(10_000, n)), axis=1)
    realised = 1 - sets[:, -largest_rank(level, n)]
    inside = ((low <= realised) & (realised <= high)).mean()
    assert abs(inside - 0.95) < 0.01
    assert (low, high) == pytest.approx((0.024, 0.084), abs=0.001)  # the reference's figures
    assert rank_interval(0, 10) == (0.0, 0.0)
    assert rank_interval(11, 10) == (1.0, 1.0)
    assert beta(10, 191).cdf(high) - beta(10, 191).cdf(low) == pytest.approx(0.95)


def test_bad_scores_are_refused():
    for scores in ([], [np.nan], [np.inf], [[1.0], [2.0]], [2.0, 1.0]):
        with pytest.raises(ValueError):
            ConformalCalibration(np.array(scores, np.float32))
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        calibrated([1, 2]).p_values(np.array([np.nan, 1], np.float32))


def test_verdicts_by_zone():
    p = np.array([0.001, 0.01, 0.011, 0.05, 0.051, 1.0])
    decisions = decide(p, np.zeros(6, int), level=0.05, calibration_size=999, detector="knn")
    assert [d.verdict for d in decisions] == [
        Verdict.UNKNOWN, Verdict.UNKNOWN, Verdict.UNSURE, Verdict.UNSURE,
        Verdict.KNOWN, Verdict.KNOWN,
    ]  # fmt: skip
    assert [d.flagged for d in decisions] == [True] * 4 + [False] * 2
    assert decisions[0].realised == rank_interval(50, 999)
    for level in (0, 1, -0.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            decide(p, np.zeros(6, int), level=level, calibration_size=9, detector="knn")
