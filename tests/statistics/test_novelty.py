import numpy as np

from ood.novelty import cluster_flagged


def test_groups_are_found_largest_first():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 16)) * 5
    features = np.concatenate(
        [c + rng.normal(size=(n, 16)) * 0.1 for c, n in zip(centres, (10, 40, 20), strict=True)]
    )
    groups = cluster_flagged(features)
    assert set(groups[10:50]) == {0} and set(groups[50:]) == {1} and set(groups[:10]) == {2}


def test_few_images_make_no_group():
    assert cluster_flagged(np.ones((4, 3))).tolist() == [-1] * 4
    assert cluster_flagged(np.empty((0, 3))).shape == (0,)


def test_identical_images_are_one_group():
    assert set(cluster_flagged(np.ones((12, 3)))) == {0}


def test_bags_among_clothes_are_grouped(demo, demo_inspection, fashion_test):
    """Of flagged test images (300 bags, 500 known), a group that is mostly bags holds most bags."""
    names = fashion_test[1]
    rows = np.concatenate(
        [np.flatnonzero(names == "Bag")[:300], np.flatnonzero(fashion_test[2])[:500]]
    )
    flagged = rows[demo_inspection.p_values["layers"][rows] <= 0.05]
    groups = cluster_flagged(demo_inspection.activations.features[flagged])
    bags = names[flagged] == "Bag"
    best = max(range(groups.max() + 1), key=lambda g: (bags & (groups == g)).sum())
    assert (bags & (groups == best)).sum() > 0.5 * bags.sum()
    assert bags[groups == best].mean() > 0.9
