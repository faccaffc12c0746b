import numpy as np
import pytest
from scipy.stats import norm

from ood.conformal import (
    SMALLEST_CATEGORY,
    ConformalCalibration,
    MondrianCalibration,
    largest_rank,
)

SHARES = np.array([0.45, 0.3, 0.2, 0.03, 0.02])
CENTRES = np.array([0.0, 1.0, -1.0, 2.0, 2.0])


def threshold(mondrian: MondrianCalibration, level: float, predicted: int) -> float:
    return mondrian.categories[mondrian.category_of[predicted]].threshold(level)


def fitted(counts) -> MondrianCalibration:
    predicted = np.repeat(np.arange(len(counts)), counts)
    scores = np.random.default_rng(0).normal(size=len(predicted))
    return MondrianCalibration.fit(scores, predicted, len(counts))


@pytest.mark.parametrize(
    ("counts", "groups"),
    [
        ([300, 200, 400], [{0}, {1}, {2}]),  # all large enough: no shared category
        ([300, 150, 400, 60], [{1, 3}, {0}, {2}]),
        ([300, 150, 400, 40], [{0, 1, 3}, {2}]),  # 190 together: the smallest class joins
        ([300, 0, 250], [{1, 2}, {0}]),  # a class never predicted in calibration
        ([199, 400], [{0, 1}]),
        ([10, 20, 30], [{0, 1, 2}]),  # nothing is enough: marginal
        ([199, 199], [{0, 1}]),
        ([5], [{0}]),
    ],
)
def test_every_class_is_in_one_category_that_is_large_enough(counts, groups):
    found = fitted(counts)
    members = [set(np.flatnonzero(found.category_of == k)) for k in range(len(found.categories))]
    assert members == groups
    sizes = [len(category) for category in found.categories]
    assert sizes == [sum(counts[c] for c in group) for group in groups]
    assert len(sizes) == 1 or min(sizes) >= SMALLEST_CATEGORY
    np.testing.assert_array_equal(
        found.sizes(np.arange(len(counts))),
        [sizes[next(k for k, g in enumerate(groups) if c in g)] for c in range(len(counts))],
    )


def test_p_values_by_counting_within_the_category():
    rng = np.random.default_rng(1)
    predicted = rng.choice(4, 1_500, p=[0.5, 0.3, 0.12, 0.08])
    scores = rng.integers(0, 30, 1_500).astype(np.float32)
    mondrian = MondrianCalibration.fit(scores, predicted, 4)
    new, classes = rng.integers(-3, 33, 100).astype(np.float32), rng.integers(0, 4, 100)
    for p, score, c, n in zip(
        mondrian.p_values(new, classes), new, classes, mondrian.sizes(classes), strict=True
    ):
        inside = mondrian.category_of[predicted] == mondrian.category_of[c]
        assert n == inside.sum()
        assert p == (1 + (inside & (scores >= score)).sum()) / (inside.sum() + 1)
        assert (p <= 0.05) == (score > threshold(mondrian, 0.05, c))


def test_one_class_is_the_marginal_calibration():
    rng = np.random.default_rng(2)
    scores, new = rng.normal(size=50), rng.normal(size=20)
    mondrian = MondrianCalibration.fit(scores, np.zeros(50, int), 1)
    marginal = ConformalCalibration(np.sort(scores))
    np.testing.assert_array_equal(mondrian.p_values(new, np.zeros(20, int)), marginal.p_values(new))
    assert mondrian.p_values(new[:0], np.zeros(0, int)).shape == (0,)


def test_each_class_keeps_the_level_where_the_marginal_calibration_does_not():
    """Exact error given each of 2,000 calibration sets; classes differ in their scores.

    Classes 3 and 4 are too few, and class 2 joins them: there the level holds on average.
    """
    rng = np.random.default_rng(3)
    level, draws = 0.05, 2_000
    errors, marginal, expected = np.empty((3, draws, 5))
    for draw in range(draws):
        predicted = rng.choice(5, 1_500, p=SHARES)
        scores = rng.normal(CENTRES[predicted])
        mondrian = MondrianCalibration.fit(scores, predicted, 5)
        assert mondrian.category_of.tolist() == [1, 2, 0, 0, 0]
        errors[draw] = norm.sf([threshold(mondrian, level, c) for c in range(5)] - CENTRES)
        marginal[draw] = norm.sf(ConformalCalibration(np.sort(scores)).threshold(level) - CENTRES)
        sizes = mondrian.sizes(np.arange(5)).tolist()
        expected[draw] = [largest_rank(level, n) / (n + 1) for n in sizes]
    errors[:, 2] = errors[:, 2:] @ SHARES[2:] / SHARES[2:].sum()
    chance = errors.std(axis=0)[:3] / np.sqrt(draws)
    assert (abs((errors - expected).mean(axis=0)[:3]) < 3.5 * chance).all()
    assert (expected <= level).all()
    assert marginal.mean(axis=0).max() > 4 * level  # the positive control: a rare class


def test_wrong_classes_are_refused():
    with pytest.raises(ValueError, match="Class 3 is predicted, of only 3"):
        MondrianCalibration.fit(np.zeros(4), np.arange(4), 3)
    with pytest.raises(ValueError, match="4 scores for 3"):
        MondrianCalibration.fit(np.zeros(4), np.arange(3), 3)
    with pytest.raises(ValueError):
        MondrianCalibration.fit(np.zeros(1), np.array([-1]), 3)
    with pytest.raises(ValueError):
        MondrianCalibration.fit(np.zeros(0), np.zeros(0, int), 3)
