import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from explain.map_quality import SAMPLED, map_quality
from models.bank import normalise_rows


def by_the_book(points, images, k):
    """Venna and Kaski's sum, an image and a neighbour at a time."""
    n, beyond = len(points), 0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        by_points = sorted(others, key=lambda j: np.linalg.norm(points[i] - points[j]))
        by_images = sorted(others, key=lambda j: np.linalg.norm(images[i] - images[j]))
        for j in by_images[:k]:
            beyond += max(0, by_points.index(j) + 1 - k)
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * beyond


@pytest.mark.parametrize("k", [1, 4, 9])
def test_it_is_the_papers_sum_and_sklearns(k):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6))
    unit, plane = normalise_rows(features), features[:, :2] + 0.3 * rng.normal(size=(40, 2))
    found = map_quality(features, plane, k)
    assert found.trustworthiness == pytest.approx(by_the_book(unit, plane, k))
    assert found.continuity == pytest.approx(by_the_book(plane, unit, k))
    assert found.trustworthiness == pytest.approx(trustworthiness(unit, plane, n_neighbors=k))
    assert found.continuity == pytest.approx(trustworthiness(plane, unit, n_neighbors=k))
    assert (found.neighbours, found.images) == (k, 40)


def test_a_map_that_keeps_all_is_perfect_and_a_shuffled_one_is_chance():
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 600)
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    perfect = map_quality(circle, 3 * circle)
    assert perfect.trustworthiness == perfect.continuity == 1
    shuffled = map_quality(circle, np.random.default_rng(1).permutation(circle))
    assert shuffled.trustworthiness == pytest.approx(0.5, abs=0.05)
    assert shuffled.continuity == pytest.approx(0.5, abs=0.05)


def test_a_torn_circle_is_trustworthy_but_not_continuous():
    angles = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 300))
    circle = np.column_stack([np.cos(angles), np.sin(angles)])
    line = np.column_stack([angles, 0 * angles])
    found = map_quality(circle, line)
    assert found.trustworthiness > 0.99 > found.continuity > 0.9


def test_copies_do_no_harm_and_large_sets_are_sampled():
    copies = np.repeat(np.random.default_rng(0).normal(size=(50, 4)), 4, axis=0)
    assert map_quality(copies, copies[:, :2], 5).continuity <= 1
    many = np.random.default_rng(0).normal(size=(SAMPLED + 500, 3))
    assert map_quality(many, many[:, :2]).images == SAMPLED
    assert map_quality(many, many[:, :2]) == map_quality(many, many[:, :2])


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match=r"15 neighbours need more than 30 images; there are 30\."):
        map_quality(np.eye(30), np.eye(30)[:, :2])


def test_the_demos_map_keeps_neighbours(demo):
    found = map_quality(demo.bank.images.activations.features, demo.coordinates)
    assert found.trustworthiness > 0.95 and found.continuity > 0.95
