import numpy as np
import pytest

from ood.novelty import group_flagged


@pytest.fixture(scope="module")
def normal(demo):
    return demo.calibration.images.activations.features


def flagged_rows(p_values, rows):
    return rows[p_values[rows] <= 0.05]


def test_groups_are_found_largest_first():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 16)) * 5
    known, *others = (
        centre + rng.normal(size=(size, 16)) * 0.1
        for centre, size in zip(centres, (200, 10, 40, 20), strict=True)
    )
    groups = group_flagged(np.concatenate(others), known)
    assert set(groups[10:50]) == {0} and set(groups[50:]) == {1} and set(groups[:10]) == {2}


def test_few_images_make_no_group(normal):
    assert group_flagged(np.ones((4, 128)), normal).tolist() == [-1] * 4
    assert group_flagged(np.empty((0, 128)), normal).shape == (0,)


def test_identical_images_are_no_error():
    assert group_flagged(np.ones((12, 3)), np.ones((40, 3))).shape == (12,)
    assert group_flagged(np.ones((12, 3)), np.empty((0, 3))).shape == (12,)


def test_odd_normal_images_are_no_group(demo, demo_inspection, fashion_test, normal):
    """The flagged ones among 8,000 known test images: under one in twenty is in any group."""
    p_values = demo_inspection.p_values["layers"]
    rows = flagged_rows(p_values, np.flatnonzero(fashion_test[2]))
    groups = group_flagged(demo_inspection.activations.features[rows], normal)
    assert (groups >= 0).mean() < 0.05


def test_groups_among_unknown_images_are_of_one_kind(demo, demo_inspection, fashion_test, normal):
    """Of 300 bags, 300 boots and 500 known images, the flagged ones."""
    names, known = fashion_test[1], fashion_test[2]
    rows = np.concatenate(
        [np.flatnonzero(names == name)[:300] for name in ("Bag", "Ankle boot")]
        + [np.flatnonzero(known)[:500]]
    )
    rows = flagged_rows(demo_inspection.p_values["layers"], rows)
    groups = group_flagged(demo_inspection.activations.features[rows], normal)
    assert groups.max() >= 1
    for group in range(groups.max() + 1):
        _, counts = np.unique(names[rows][groups == group], return_counts=True)
        assert counts.max() >= 0.8 * counts.sum()
    largest = names[rows][groups == 0]
    assert set(largest) <= {"Bag", "Ankle boot"} and len(largest) > 30
