import numpy as np
import pytest
from scipy.stats import binomtest, fisher_exact

from explain.subgroups import find_worse_subgroups, rare_classes, wilson_interval


def draw(accuracies, count=80, seed=0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(accuracies)), count)
    right = rng.random(len(groups)) < np.asarray(accuracies)[groups]
    return groups, np.zeros(len(groups), int), np.where(right, 0, 1)


def test_p_values_are_fishers():
    groups, labels, predicted = draw([0.9, 0.7, 0.85], 40)
    found = find_worse_subgroups(groups, labels, predicted)
    right = predicted == labels
    for group in range(3):
        own, rest = right[groups == group], right[groups != group]
        table = [[own.sum(), (~own).sum()], [rest.sum(), (~rest).sum()]]
        assert found.p_values[group] == pytest.approx(fisher_exact(table, "less").pvalue)
        assert found.accuracy[group] == own.mean() and found.counts[group] == 40


def test_intervals_are_scipys():
    successes, trials = np.array([0, 3, 17, 20]), np.array([4, 7, 20, 20])
    low, high = wilson_interval(successes, trials)
    for k in range(4):
        peer = binomtest(successes[k], trials[k]).proportion_ci(method="wilson")
        np.testing.assert_allclose([low[k], high[k]], peer, atol=1e-12)


def test_groups_that_are_worse_are_found():
    found = find_worse_subgroups(*draw([0.95, 0.6, 0.95, 0.5, 0.95]))
    np.testing.assert_array_equal(found.worse, [False, True, False, True, False])


def test_where_none_is_worse_hardly_any_is_named():
    """All hypotheses hold, so that the false share is the chance of naming any."""
    named = [find_worse_subgroups(*draw([0.9] * 8, seed=seed)).worse.any() for seed in range(400)]
    assert np.mean(named) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_empty_groups_and_sets():
    found = find_worse_subgroups(np.array([0, 0, 2]), np.zeros(3, int), np.zeros(3, int))
    assert np.isnan(found.accuracy[1]) and (found.low[1], found.high[1]) == (0, 1)
    assert found.p_values[1] == 1 and not found.worse.any()
    nothing = np.zeros(0, int)
    assert len(find_worse_subgroups(nothing, nothing, nothing).worse) == 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="must all be"):
        find_worse_subgroups(np.zeros(3, int), np.zeros(2, int), np.zeros(3, int))
    with pytest.raises(ValueError, match="numbered from 0"):
        find_worse_subgroups(np.array([-1, 0]), np.zeros(2, int), np.zeros(2, int))


def test_rare_classes_have_less_than_a_tenth_of_the_median():
    labels = np.repeat([0, 1, 2, 4], [100, 9, 10, 5000])
    np.testing.assert_array_equal(rare_classes(labels, 5), [3])
    np.testing.assert_array_equal(rare_classes(np.repeat([0, 1, 2], [100, 9, 200]), 3), [1])
