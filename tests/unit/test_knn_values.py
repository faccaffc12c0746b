from itertools import combinations
from math import comb

import numpy as np
import pytest

from explain.shapley import knn_shapley


def brute_force(features, labels, asked, asked_label, neighbours):
    """Every coalition, by the definition of Shapley."""
    count = len(labels)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    order = np.argsort(1 - unit @ (asked / np.linalg.norm(asked)), kind="stable")
    place = np.argsort(order)

    def worth(members):
        nearest = sorted(members, key=lambda row: place[row])[:neighbours]
        return sum(labels[row] == asked_label for row in nearest) / neighbours

    values = np.zeros(count)
    for row in range(count):
        others = [other for other in range(count) if other != row]
        for size in range(count):
            for members in combinations(others, size):
                gain = worth((*members, row)) - worth(members)
                values[row] += gain / (count * comb(count - 1, size))
    return values


@pytest.mark.parametrize("neighbours", [1, 3, 20])
def test_values_are_shapleys(neighbours):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(7, 4)), rng.integers(0, 2, 7)
    asked, asked_labels = rng.normal(size=(2, 4)), np.array([0, 1])
    expected = np.mean(
        [brute_force(features, labels, x, y, neighbours)
         for x, y in zip(asked, asked_labels, strict=True)],
        axis=0,
    )  # fmt: skip
    found = knn_shapley(features, labels, asked, asked_labels, neighbours)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_without_validation_images_there_is_no_value():
    with pytest.raises(ValueError, match="no validation images"):
        knn_shapley(np.eye(3), np.arange(3), np.empty((0, 3)), np.empty(0, int))
