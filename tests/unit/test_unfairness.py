import numpy as np

from explain.head import refit_head
from explain.influence import HeadInfluence
from explain.refits import HeadRefits
from explain.unfairness import single_flips
from models.activations import Head
from models.bank import Bank
from tests.unit.test_bank import observed

L2 = 1e-2


def world(seed=0):
    """Few training images, so that single ones matter, and many images near the boundary."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), 12)
    middle = rng.normal(size=(3, 5))
    features = middle[labels] + rng.normal(size=(36, 5))
    bank = Bank(observed(features, labels=labels), Head(np.zeros((3, 5)), np.zeros(3)))
    head = refit_head(features := np.asarray(bank.images.activations.features), labels, 3, L2)
    influence = HeadInfluence.fit(bank, head)
    asked = middle[rng.integers(0, 3, 400)] + rng.normal(size=(400, 5))
    return features, labels, influence, HeadRefits.of(bank, head, influence.inverse_hessian), asked


def by_brute_force(features, labels, refits, asked):
    """(m,) bool: whether leaving any one training image out, refitted from scratch, flips it."""
    before = refits.head.logits(asked).argmax(axis=1)
    flips = np.zeros(len(asked), bool)
    for row in range(len(labels)):
        # The other images keep their weight 1/N, so that the penalty weighs as much as before.
        kept = np.arange(len(labels)) != row
        share = kept.sum() / len(labels)
        head = refit_head(features[kept], labels[kept], 3, L2 / share)
        flips |= head.logits(asked).argmax(axis=1) != before
    return flips


def test_those_found_flip_and_hardly_any_is_missed():
    features, labels, influence, refits, asked = world()
    found = single_flips(influence, refits, asked, np.arange(400) + 7)
    np.testing.assert_array_equal(found.asked, np.arange(400) + 7)
    truth = by_brute_force(features, labels, refits, asked)
    assert 10 < truth.sum() < 100
    flagged = found.by >= 0
    assert not (flagged & ~truth).any()
    assert flagged.sum() >= 0.95 * truth.sum()
    for image in np.flatnonzero(flagged)[:10]:
        head = refits.without([found.by[image]])
        assert head.logits(asked[image : image + 1]).argmax() == found.after[image]


def test_answers_that_hang_on_nobody_stay_what_they_are():
    *_, influence, refits, asked = world()
    found = single_flips(influence, refits, asked, np.arange(400))
    own = refits.head.logits(asked).argmax(axis=1)
    np.testing.assert_array_equal(found.after == own, found.by == -1)


def test_no_images():
    *_, influence, refits, _ = world()
    assert len(single_flips(influence, refits, np.empty((0, 5)), np.empty(0, int)).by) == 0
