from itertools import combinations
from math import comb

import numpy as np
import pytest
from cleanlab.data_valuation import data_shapley_knn

from explain.data_oob import data_oob
from explain.shapley import knn_shapley, marginal_weights, nearest_first, ranked_values


def brute_force(features, labels, asked, asked_labels, neighbours):
    """Shapley's own formula over all 2^N sets of training images, in float64."""
    n = len(labels)
    unit, ask = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, asked))
    distances = 1 - ask @ unit.T

    def worth(members):
        members = np.array(members, int)
        total = 0.0
        for row, label in zip(distances, asked_labels, strict=True):
            nearest = members[np.argsort(row[members], kind="stable")][:neighbours]
            total += (labels[nearest] == label).sum() / neighbours
        return total / len(asked)

    worths = {s: worth(s) for k in range(n + 1) for s in combinations(range(n), k)}
    values = np.zeros(n)
    for image in range(n):
        others = [row for row in range(n) if row != image]
        for k in range(n):
            for s in combinations(others, k):
                gain = worths[tuple(sorted((*s, image)))] - worths[s]
                values[image] += gain / (n * comb(n - 1, k))
    return values


def images(n, m, seed=0, dim=4, classes=3):
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(classes, dim))
    labels, asked_labels = rng.integers(0, classes, n), rng.integers(0, classes, m)
    return (
        middle[labels] + rng.normal(size=(n, dim)), labels,
        middle[asked_labels] + rng.normal(size=(m, dim)), asked_labels,
    )  # fmt: skip


@pytest.mark.parametrize("neighbours", [1, 3, 9, 20])
def test_values_are_shapleys_own_formula(neighbours):
    some = images(9, 4, seed=neighbours)
    found = knn_shapley(*some, neighbours)
    np.testing.assert_allclose(found, brute_force(*some, neighbours), atol=1e-12)


def test_images_at_one_place_count_by_row():
    features, labels, asked, asked_labels = images(8, 3)
    features[[2, 5, 7]] = features[0]
    found = knn_shapley(features, labels, asked, asked_labels, 2)
    np.testing.assert_allclose(
        found, brute_force(features, labels, asked, asked_labels, 2), atol=1e-12
    )


def test_values_add_up_to_what_all_images_are_worth():
    features, labels, asked, asked_labels = images(500, 70)
    found = knn_shapley(features, labels, asked, asked_labels, 5)
    unit, ask = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, asked))
    nearest = np.argsort(-ask @ unit.T, axis=1)[:, :5]
    assert found.sum() == pytest.approx((labels[nearest] == asked_labels[:, None]).mean())


def test_a_slice_is_its_share_of_the_whole():
    features, labels, asked, asked_labels = images(200, 40)
    parts = [knn_shapley(features, labels, asked[k::2], asked_labels[k::2]) for k in (0, 1)]
    np.testing.assert_allclose(
        knn_shapley(features, labels, asked, asked_labels), np.mean(parts, axis=0), atol=1e-12
    )


def test_cleanlabs_values_are_these_cut_off_at_the_nearest():
    """It counts K neighbours only and lets the K-th be worth nothing."""
    features, labels, _, _ = images(300, 1, dim=8)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :10]
    weights = marginal_weights(300, 10)[:10] * (np.arange(10) < 9)
    each = ranked_values(labels[nearest] == labels[:, None], weights)
    cut_off = np.bincount(nearest.ravel(), each.ravel(), 300) / 300
    np.testing.assert_allclose(
        (cut_off + 1) / 2, data_shapley_knn(labels, features=features, k=10), atol=1e-12
    )


def test_half_precision_and_unnormalised_features_are_the_same():
    features, labels, asked, asked_labels = images(100, 20)
    features = features.astype(np.float16)
    plain = knn_shapley(features, labels, asked, asked_labels)
    long = knn_shapley(3 * features.astype(np.float64), labels, 7 * asked, asked_labels)
    np.testing.assert_allclose(plain, long, atol=1e-12)


def test_wrong_labels_are_worth_less():
    features, labels, asked, asked_labels = images(600, 100, dim=16)
    wrong = np.arange(0, 600, 10)
    given = labels.copy()
    given[wrong] = (labels[wrong] + 1) % 3
    found = knn_shapley(features, given, asked, asked_labels)
    assert (found[wrong] < np.median(found)).mean() > 0.85


def test_one_image_is_worth_its_share_of_right_neighbours():
    values = knn_shapley(np.ones((1, 2)), np.array([1]), np.ones((4, 2)), np.array([1, 1, 1, 0]), 2)
    np.testing.assert_allclose(values, [0.75 / 2])


def test_nearest_first_is_a_stable_sort():
    distances = np.random.default_rng(0).integers(1, 40, 999).astype(np.float32) / 7
    np.testing.assert_array_equal(nearest_first(distances), np.argsort(distances, kind="stable"))


def test_what_cannot_be_valued_is_refused():
    features, labels, asked, asked_labels = images(10, 3)
    with pytest.raises(ValueError, match="no validation images"):
        knn_shapley(features, labels, asked[:0], asked_labels[:0])
    with pytest.raises(ValueError, match=r"training features .* must be"):
        knn_shapley(features, labels[:5], asked, asked_labels)
    asked[1, 2] = np.nan
    with pytest.raises(ValueError, match="validation features are not finite"):
        knn_shapley(features, labels, asked, asked_labels)


def test_data_oob_is_the_share_of_right_answers_out_of_bag():
    """Of two classes far apart, with one wrong label: trees without it never find it, others do."""
    labels = np.arange(150) % 2
    features = 9 * labels[:, None] + np.random.default_rng(0).normal(size=(150, 8))
    labels[7] = 1 - labels[7]
    found = data_oob(features, labels, bags=40)
    assert found.bags.mean() == pytest.approx(40 * np.exp(-1), rel=0.1)
    assert found.values[7] == 0 and found.values[np.arange(150) != 7].mean() > 0.95
    again = data_oob(features, labels, bags=40)
    np.testing.assert_array_equal(found.values, again.values)


def test_data_oobs_standard_error_is_the_spread_of_other_draws():
    features, labels, _, _ = images(80, 1, dim=3)
    draws = [data_oob(features, labels, bags=30, seed=seed) for seed in range(12)]
    spread = np.std([draw.values for draw in draws], axis=0, ddof=1)
    claimed = np.mean([draw.standard_errors for draw in draws], axis=0)
    assert spread.mean() == pytest.approx(claimed.mean(), rel=0.15)


def test_an_image_in_every_bag_has_no_data_oob():
    found = data_oob(np.ones((1, 2)), np.zeros(1, int), bags=3)
    assert np.isnan(found.values).all() and np.isnan(found.standard_errors).all()
    assert found.bags[0] == 0
