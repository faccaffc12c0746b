import numpy as np
import pytest

from explain.effects import (
    Slice,
    group_alike,
    group_effects,
    refit_without_group,
    removal_effects,
)
from tests.unit.test_refits import bank, fitted  # noqa: F401


@pytest.fixture(scope="module")
def held_out():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 20)
    middle = np.random.default_rng(0).normal(size=(3, 6))  # those of the training images
    return Slice(middle[labels] + rng.normal(size=(60, 6)), labels)


def test_effects_on_a_slice_are_the_refits(fitted, held_out):  # noqa: F811
    influence, refits = fitted
    predicted = removal_effects(influence, held_out)
    rows = np.argsort(-np.abs(predicted))[:15]
    before = held_out.loss(refits.head)
    actual = [held_out.loss(refits.without([row])) - before for row in rows]
    assert np.corrcoef(predicted[rows], actual)[0, 1] > 0.99
    assert 0.9 < np.polyfit(predicted[rows], actual, 1)[0] < 1.3


def test_effects_add_up_over_the_slice(fitted, held_out):  # noqa: F811
    influence, _ = fitted
    halves = [Slice(held_out.features[k::2], held_out.labels[k::2]) for k in (0, 1)]
    mean = np.mean([removal_effects(influence, half) for half in halves], axis=0)
    np.testing.assert_allclose(removal_effects(influence, held_out), mean, rtol=1e-3, atol=1e-9)


def test_groups_are_of_one_class_and_hold_everybody_once(bank):  # noqa: F811
    features, labels = np.asarray(bank.images.activations.features), bank.images.labels
    groups = group_alike(features, labels)
    assert all(len(set(labels[groups == group])) == 1 for group in np.unique(groups))
    found = group_effects(np.arange(180.0) - 90, groups, labels)
    assert sorted(np.concatenate([group.rows for group in found])) == list(range(180))
    assert [g.predicted for g in found] == sorted(g.predicted for g in found)
    np.testing.assert_array_equal(groups, group_alike(features, labels))


def test_a_class_of_one_image_is_a_group(bank):  # noqa: F811
    groups = group_alike(np.eye(3), np.array([0, 0, 1]))
    assert len(np.unique(groups)) == 2


def test_mislabelled_images_are_the_group_that_hurts(fitted, bank, held_out):  # noqa: F811
    from explain.head import refit_head
    from explain.influence import HeadInfluence
    from explain.refits import HeadRefits

    features = np.asarray(bank.images.activations.features)
    labels = np.array(bank.images.labels)
    wrong = np.arange(0, 12)
    labels[wrong] = 1  # twelve of class 0
    images = bank.images.take(np.arange(180))
    object.__setattr__(images, "labels", labels)
    other = type(bank)(images, bank.head)
    head = refit_head(features, labels, 3, l2=1e-2)
    influence = HeadInfluence.fit(other, head)
    effects = removal_effects(influence, held_out)
    groups = np.where(np.isin(np.arange(180), wrong), 3, labels)
    worst = group_effects(effects, groups, labels)[0]
    np.testing.assert_array_equal(np.sort(worst.rows), wrong)
    refits = HeadRefits.of(other, head, influence.inverse_hessian)
    loss, accuracy = refit_without_group(refits, worst, held_out)
    assert loss < 0 and accuracy >= 0 and worst.label == 1
