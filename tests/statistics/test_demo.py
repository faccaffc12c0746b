"""What the README says of the embedded workspace."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ood.decision import Rule
from ood.selection import choose_default


def auroc(known, unknown) -> float:
    truth = np.repeat([0, 1], [len(known), len(unknown)])
    return roc_auc_score(truth, np.concatenate([known, unknown]))


@pytest.fixture(scope="module")
def scores(demo, demo_inspection):
    return demo_inspection.scores[demo.manifest.detector]


def test_known_test_images_are_classified(demo, demo_inspection, fashion_test):
    _, names, known = fashion_test
    predicted = np.array(demo.classes)[demo_inspection.predicted]
    assert (predicted[known] == names[known]).mean() >= 0.925


def test_one_in_twenty_known_test_images_is_flagged(demo, demo_inspection, fashion_test):
    decisions = demo.decide(demo_inspection, Rule(0.05))
    flagged = np.array([decision.flagged for decision in decisions])
    assert 0.04 <= flagged[fashion_test[2]].mean() <= 0.06


def test_bags_are_told_apart(scores, fashion_test):
    _, names, known = fashion_test
    assert auroc(scores[known], scores[names == "Bag"]) >= 0.97
    assert auroc(scores[known], scores[names == "Ankle boot"]) >= 0.92


def test_digits_are_told_apart(demo, scores, fashion_test, mnist_test):
    digits = demo.inspect(mnist_test).scores[demo.manifest.detector]
    assert auroc(scores[fashion_test[2]], digits) >= 0.97


def test_training_and_held_out_images_are_not_told_apart(demo):
    """A detector that can is judging membership, not novelty."""
    for name, own in demo.training_scores.items():
        assert 0.47 < auroc(own, demo.calibration_scores[name]) < 0.53, name


def test_the_default_was_chosen_by_the_rule_on_outliers_made_of_held_out_images(demo):
    assert demo.manifest.detector == choose_default(demo.manifest.chosen_by)
    assert demo.manifest.chosen_by.keys() == demo.calibration_scores.keys()


def test_the_assets_stay_small(demo):
    size = sum(p.stat().st_size for p in demo.path.parent.rglob("*") if p.is_file())
    assert size < 70e6
