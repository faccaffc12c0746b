import numpy as np
import pytest
from scipy.special import softmax

from ood.temperature import fit_temperature, probabilities


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_it_finds_the_temperature_that_labels_were_drawn_at(true):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 5)) * 4
    chances = softmax(logits / true, axis=1)
    labels = (chances.cumsum(axis=1) < rng.uniform(size=(20_000, 1))).sum(axis=1)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.05)


def test_confidence_on_the_demo_is_calibrated(demo, demo_inspection, fashion_test):
    """Expected calibration error over 15 bins of the known test images, below 2%."""
    known, names = fashion_test[2], fashion_test[1]
    confidence = demo_inspection.confidence[known]
    correct = np.array(demo.classes)[demo_inspection.predicted[known]] == names[known]
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        abs(confidence[bins == b].mean() - correct[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    assert sum(gaps) < 0.02


def test_a_hundred_right_answers_are_not_certainty():
    """With no error among n images, confidence stays near 1 - 1/n, the rule of succession."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 100)
    logits = np.eye(3)[labels] * rng.uniform(2, 3, (100, 1))
    confidence = probabilities(logits, fit_temperature(logits, labels)).max(axis=1)
    assert 0.97 < confidence.mean() < 0.999


def test_certain_labels_stay_in_range():
    logits = np.eye(3)[[0, 1, 2] * 10] * 100
    temperature = fit_temperature(logits, np.array([0, 1, 2] * 10))
    assert 0.05 <= temperature <= 20
    assert np.isfinite(probabilities(logits * 1e4, temperature)).all()
