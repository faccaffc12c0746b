import numpy as np
import pytest
from scipy.stats import combine_pvalues, kstest

from ood.combination import COMBINATIONS, MEMBERS, Combiner
from ood.detectors.masf import simes
from ood.selection import MARGIN, choose_default, mean_auroc


def scores_of(n, seed, shift=0.0, alike=0.7):
    """Four detectors' scores on very different scales, all of them seeing much the same."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=n) + shift
    return {
        name: (scale * np.exp(alike * common + (1 - alike) * rng.normal(size=n))).astype(np.float32)
        for name, scale in zip(MEMBERS, (1e-3, 1.0, 50.0, 1e4), strict=True)
    }


@pytest.fixture(scope="module")
def combiner():
    return Combiner.fit(scores_of(4000, 0))


def test_members_p_values_are_uniform_whatever_their_scale(combiner):
    p = combiner.p_values(scores_of(1000, 1))
    assert p.shape == (1000, 4)
    for column in p.T:
        assert kstest(column, "uniform").pvalue > 0.01


def test_joined_as_scipy_joins(combiner):
    p = combiner.p_values(scores_of(50, 2, shift=1.0))
    found = combiner.score(scores_of(50, 2, shift=1.0))
    fisher = [combine_pvalues(row, "fisher").statistic / 2 for row in p]
    np.testing.assert_allclose(found["fisher"], fisher, rtol=1e-5)
    np.testing.assert_allclose(found["simes"], -np.log(simes(p)), rtol=1e-5)
    harmonic = [-np.log(1 / np.mean(1 / row)) for row in p]
    np.testing.assert_allclose(found["harmonic"], harmonic, rtol=1e-5)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_stranger_images_score_higher_and_far_ones_stay_apart(combiner, name):
    means = [combiner.score(scores_of(500, 3, shift))[name].mean() for shift in (0, 1, 3, 9, 12)]
    assert (np.diff(means) > 0).all()
    extreme = {member: np.full(1, np.finfo(np.float32).max) for member in MEMBERS}
    assert np.isfinite(combiner.score(extreme)[name]).all()


def test_no_law_is_claimed_for_a_combination(combiner):
    """Brown's is a scaled chi-square; none is used here."""
    papers = [combination.info.paper for combination in COMBINATIONS.values()]
    assert [paper.authors for paper in papers] == ["after Fisher", "Simes", "Wilson"]


def test_simes_is_valid_as_it_is_and_fisher_by_chi_square_is_not(combiner):
    """So Fisher's statistic gets its p-value from a calibration set, like any score."""
    p = combiner.p_values(scores_of(20_000, 4))
    assert (simes(p) <= 0.05).mean() < 0.055
    chi_square = np.array([combine_pvalues(row, "fisher").pvalue for row in p[:4000]])
    assert (chi_square <= 0.05).mean() > 0.08


def test_a_combination_is_kept_unless_one_detector_is_clearly_better():
    auroc = dict.fromkeys(COMBINATIONS, 0.9) | {"knn": 0.5, "vim": 0.6}
    assert choose_default(auroc | {"fisher": 0.95}) == "fisher"
    assert choose_default(auroc | {"knn": 0.9 + MARGIN / 2}) in COMBINATIONS
    assert choose_default(auroc | {"knn": 0.9 + 2 * MARGIN}) == "knn"


def test_the_mean_is_over_kinds_of_outliers():
    normal = {"a": np.arange(10.0)}
    kinds = {"far": {"a": np.full(5, 99.0)}, "alike": {"a": np.arange(10.0)}}
    assert mean_auroc(normal, kinds) == {"a": 0.75}
