from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from app.audit import doubtful, reasons
from app.auditing import make_audit
from explain.cross_validation import head_cross_validation, stratified_folds
from explain.head import refit_head
from explain.influence import HeadInfluence
from explain.label_issues import normalised_margin, self_confidence
from explain.subgroups import rare_classes, wilson_interval
from models.activations import Head
from models.bank import Bank, CalibrationSet, normalise_rows
from models.images import thumbnail_webp
from models.observed import Blobs
from tests.unit.test_bank import observed

WRONG = np.arange(0, 300, 30)


def pictured(images):
    """With pictures of noise, none like another."""
    pictures = np.random.default_rng(len(images)).integers(0, 256, (len(images), 9, 9), np.uint8)
    made = [thumbnail_webp(Image.fromarray(picture), 9) for picture in pictures]
    return replace(images, thumbnails=Blobs.pack(made))


@pytest.fixture(scope="module")
def world():
    """Three clusters; ten labels wrong, two images with the same pixels, one far from all."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 100)
    middle = 4 * np.eye(3, 8)
    features = middle[labels] + rng.normal(size=(300, 8))
    features[299] = -50
    given = labels.copy()
    given[WRONG] = (labels[WRONG] + 1) % 3
    ids = rng.integers(0, 256, (300, 32), np.uint8)
    ids[17] = ids[5]
    head = Head(np.zeros((3, 8), np.float32), np.zeros(3, np.float32))
    bank = Bank(pictured(observed(features, labels=given, ids=ids)), head)
    held = np.repeat(np.arange(3), 40)
    calibration = observed(middle[held] + rng.normal(size=(120, 8)), labels=held, seed=1)
    return bank, CalibrationSet(pictured(calibration), bank), labels


@pytest.fixture(scope="module")
def audit(world):
    bank, calibration, _ = world
    features = np.asarray(bank.images.activations.features)
    head = refit_head(features, bank.images.labels, 3, l2=1e-2)
    return make_audit(bank, calibration, HeadInfluence.fit(bank, head))


def test_wrong_labels_are_found_and_the_right_ones_suggested(world, audit):
    assert set(WRONG) <= set(np.argsort(-audit.suspicion)[:12])
    assert audit.flagged[WRONG].mean() >= 0.9 and audit.flagged.sum() <= 14
    np.testing.assert_array_equal(audit.suggested[WRONG], world[2][WRONG])
    assert audit.margin[WRONG].min() > 0.5 and audit.disagreement[WRONG].min() > 0.5
    assert audit.worthlessness[WRONG].mean() > np.median(audit.worthlessness)
    assert audit.out_of_bag[WRONG].min() > 0.5 > np.median(audit.out_of_bag)
    assert audit.harm[WRONG].mean() > 0 > np.median(np.delete(audit.harm, WRONG))


def test_copies_and_strangers_are_found(audit):
    assert audit.duplicates[5] == audit.duplicates[17] == 0
    assert (audit.duplicates >= 0).sum() == 2
    assert audit.isolation.argmax() == 299 and reasons(audit)["odd"][299]
    assert (audit.leaks == -1).all() and np.isnan(audit.area_under_margin).all()
    assert set(doubtful(audit)) >= {5, 17, 299, *np.flatnonzero(audit.flagged)}


def test_without_influences_there_is_no_harm(world):
    bank, calibration, _ = world
    assert not make_audit(bank, calibration, None).harm.any()


def test_logged_epochs_are_another_witness(world):
    bank, calibration, labels = world
    logits = np.stack([np.eye(3)[labels] * epoch for epoch in (1, 3)])
    found = make_audit(bank, calibration, None, logits).area_under_margin
    np.testing.assert_allclose(found[WRONG], 2)
    np.testing.assert_allclose(np.delete(found, WRONG), -2)


def test_folds_are_even_and_probabilities_out_of_sample(world):
    bank = world[0]
    features, labels = normalise_rows(bank.images.activations.features), bank.images.labels
    folds = stratified_folds(labels, 5, seed=0)
    assert {int(n) for c in range(3) for n in np.bincount(folds[labels == c])} <= {18, 19, 20, 21}
    found = head_cross_validation(features, labels, 3, l2=1e-2)
    held = folds == 2
    by_the_book = refit_head(features[~held], labels[~held], 3, l2=1e-2)
    logits = by_the_book.logits(features[held])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[held], expected, atol=5e-3)


def test_scores_by_hand():
    p, y = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]), np.array([0, 2])
    np.testing.assert_allclose(normalised_margin(p, y), [0.25, 0.8], rtol=1e-6)
    np.testing.assert_allclose(self_confidence(p, y), [0.3, 0.9], rtol=1e-6)
    low, high = wilson_interval(np.array([0, 8, 10]), np.array([10, 10, 10]))
    np.testing.assert_allclose(low, [0, 0.4902, 0.7225], atol=1e-4)  # Wilson by R's prop.test
    np.testing.assert_allclose(high, [0.2775, 0.9433, 1], atol=1e-4)
    assert rare_classes(np.repeat([0, 1, 2], [100, 90, 4]), 4).tolist() == [3, 2]
