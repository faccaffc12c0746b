import numpy as np
import pytest

from explain.flips import flip_set
from explain.head import refit_head
from explain.influence import HeadInfluence
from explain.refits import HeadRefits
from explain.trust import Fidelity, leave_one_out_check
from models.activations import Head
from models.bank import Bank
from tests.unit.test_bank import observed

CLASSES, DIM = 3, 6


@pytest.fixture(scope="module")
def bank():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), 60)
    features = rng.normal(size=(CLASSES, DIM))[labels] + rng.normal(size=(180, DIM))
    head = Head(np.zeros((CLASSES, DIM), np.float32), np.zeros(CLASSES, np.float32))
    return Bank(observed(features.astype(np.float32), labels=labels), head)


@pytest.fixture(scope="module")
def fitted(bank):
    features, labels = np.asarray(bank.images.activations.features), bank.images.labels
    head = refit_head(features, labels, CLASSES, l2=1e-2)
    influence = HeadInfluence.fit(bank, head)
    return influence, HeadRefits.of(bank, head, influence.inverse_hessian)


def from_scratch(bank, kept, labels=None):
    """Without the others and their weight: the penalty counts as much more as they are fewer."""
    features = np.asarray(bank.images.activations.features)[kept]
    labels = np.asarray(bank.images.labels if labels is None else labels)[kept]
    return refit_head(features, labels, CLASSES, l2=1e-2 * len(bank.images) / len(features))


@pytest.mark.parametrize("rows", [[5], [0, 1, 2, 100, 170], range(0, 180, 2), range(60)])
def test_a_refit_without_images_is_one_from_scratch_on_the_others(bank, fitted, rows):
    kept = np.setdiff1d(np.arange(180), list(rows))
    again = fitted[1].without(list(rows))
    np.testing.assert_allclose(again.theta, from_scratch(bank, kept).theta, atol=1e-6)
    assert again.gradient_norm < 1e-8


def test_a_refit_with_another_label_is_one_from_scratch_with_it(bank, fitted):
    labels = np.array(bank.images.labels)
    labels[[3, 90]] = 2, 0
    again = fitted[1].without([7], {3: 2, 90: 0})
    expected = from_scratch(bank, np.setdiff1d(np.arange(180), [7]), labels)
    np.testing.assert_allclose(again.theta, expected.theta, atol=1e-6)


def test_without_nothing_it_is_the_same_and_without_all_it_knows_nothing(fitted):
    _, refits = fitted
    np.testing.assert_array_equal(refits.without([]).theta, refits.head.theta)
    np.testing.assert_allclose(refits.without(range(180)).theta, 0, atol=1e-6)


def test_an_image_named_twice_is_left_out_once(fitted):
    np.testing.assert_array_equal(fitted[1].without([4, 4]).theta, fitted[1].without([4]).theta)


def test_influence_predicts_the_refit(bank, fitted):
    influence, refits = fitted
    features = np.asarray(bank.images.activations.features)[0] * 0.3
    predicted = influence.on_margin(features, 0, 1)
    extended = np.append(features, 1)
    actual = []
    for row in range(0, 180, 6):
        theta = refits.without([row]).theta - refits.head.theta
        actual.append((theta[0] - theta[1]) @ extended)
    found = np.polyfit(predicted[::6], actual, 1)[0]
    assert np.corrcoef(predicted[::6], actual)[0, 1] > 0.99 and 0.9 < found < 1.15


def test_a_flip_set_flips_and_one_fewer_does_not(bank, fitted):
    influence, refits = fitted
    features = np.asarray(bank.images.activations.features)
    sizes = []
    for row in range(0, 180, 4):
        found = flip_set(influence, refits, features[row])
        if found is None:
            continue
        extended = np.append(features[row], 1)
        without = [int((refits.without(found.rows[:k]).theta @ extended).argmax())
                   for k in (len(found.rows), len(found.rows) - 1)]  # fmt: skip
        assert without == [found.after, found.before] and found.after != found.before
        assert found.before == influence.predict(features[row])
        sizes.append(len(found.rows))
    assert len(sizes) > 5 and min(sizes) < 20


def test_a_decision_that_few_images_cannot_flip_has_no_flip_set(bank, fitted):
    influence, refits = fitted
    surest = np.asarray(bank.images.activations.features)[0] * 20
    assert flip_set(influence, refits, surest, largest=5) is None


def test_the_prediction_for_an_edit_is_the_sum_of_its_influences(bank, fitted):
    influence, refits = fitted
    features = np.asarray(bank.images.activations.features)[70] * 0.5
    rows = [1, 60, 150]
    theta = refits.predicted(rows) - refits.head.theta
    expected = influence.on_margin(features, 1, 2)[rows].sum()
    assert (theta[1] - theta[2]) @ np.append(features, 1) == pytest.approx(expected, rel=1e-3)


def test_the_prediction_for_another_label_is_near_the_refit(bank, fitted):
    refits = fitted[1]
    found = refits.predicted([], {20: 2}) - refits.head.theta
    actual = refits.without([], {20: 2}).theta - refits.head.theta
    assert np.corrcoef(found.ravel(), actual.ravel())[0, 1] > 0.98


def test_the_check_compares_with_refits_one_by_one(bank, fitted):
    features = np.asarray(bank.images.activations.features)[::20]
    check = leave_one_out_check(*fitted, features, count=12)
    assert check.influence.shape == check.newton.shape == check.actual.shape == (12, 9)
    first = Fidelity.of(check.influence, check.actual)
    assert first.pearson > 0.98 and first.spearman > 0.95 and 0.9 < first.slope < 1.3
    newton = Fidelity.of(check.newton, check.actual)
    assert newton.pearson > max(first.pearson, 0.99)
    assert abs(newton.slope - 1) < min(abs(first.slope - 1), 0.1)
    row = check.rows[3]
    moved = fitted[1].without([row]).logits(features) - fitted[1].head.logits(features)
    against, target = np.argsort(fitted[1].head.logits(features), axis=1)[:, -2:].T
    asked = np.arange(9)
    np.testing.assert_allclose(
        check.actual[3], moved[asked, target] - moved[asked, against], rtol=1e-9
    )
