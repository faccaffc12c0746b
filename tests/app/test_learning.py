"""Classes named by a person, learned on the demo."""

import time

import numpy as np
import pytest

from app.learning import LearnedClasses, NamedImages, report


@pytest.fixture(scope="module")
def features(demo_inspection, fashion_test):
    """Features of the test images of a class."""
    _, names, _ = fashion_test
    found = np.asarray(demo_inspection.activations.features)
    return lambda name: found[names == name]


def test_a_bag_is_known_as_one_and_the_others_are_hardly_forgotten(
    demo, demo_inspection, fashion_test, features
):
    """100 bags named: at least 95% of the other 900 known, at most half a point lost elsewhere."""
    _, names, known = fashion_test
    own, lost, seconds = [], [], []
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(1_000)
        start = time.perf_counter()
        learned = LearnedClasses.learn(demo, [NamedImages("Bag", features("Bag")[rows[:100]])])
        seconds.append(time.perf_counter() - start)
        own.append((learned.logits(features("Bag")[rows[100:]]).argmax(axis=1) == 8).mean())
        labels = [demo.classes.index(name) for name in names[known]]
        asked = np.asarray(demo_inspection.activations.features)[known]
        before, after = (
            (logits.argmax(axis=1) == labels).mean()
            for logits in (demo_inspection.activations.logits[known], learned.logits(asked))
        )
        lost.append(before - after)
    assert np.mean(own) >= 0.95 and np.mean(lost) <= 0.005
    assert np.median(seconds) < 2


def test_held_back_images_are_recognised_and_others_are_not(demo, features, fashion_test):
    learned = LearnedClasses.learn(demo, [NamedImages("Bag", features("Bag")[:60])])
    assert (learned.recognise(features("Bag")[60:], 0.05) == 0).mean() > 0.85
    assert (learned.recognise(features("Ankle boot"), 0.05) == 0).mean() < 0.02
    assert (learned.recognise(features("Dress"), 0.05) == 0).mean() < 0.02


def test_two_classes_are_told_apart(demo, features):
    named = [
        NamedImages("Bag", features("Bag")[:80]),
        NamedImages("Ankle boot", features("Ankle boot")[:80]),
    ]
    learned = LearnedClasses.learn(demo, named)
    assert (learned.recognise(features("Bag")[80:], 0.05) == 0).mean() > 0.8
    assert (learned.recognise(features("Ankle boot")[80:], 0.05) == 1).mean() > 0.7
    found = report(demo, named, learned)
    assert found.images == 80 and 0 < found.before - found.after < 0.01
    truth = (learned.logits(features("Ankle boot")[80:]).argmax(axis=1) == 9).mean()
    assert found.own == pytest.approx(truth, abs=0.1)


def test_without_named_classes_nothing_changes(demo, features):
    learned = LearnedClasses.learn(demo, [])
    asked = features("Coat")[:50]
    own = asked @ demo.bank.head.weight.T + demo.bank.head.bias
    np.testing.assert_allclose(learned.logits(asked), own, rtol=1e-5, atol=1e-5)
    assert (learned.recognise(asked, 0.05) == -1).all()
    assert learned.p_values(asked).shape == (50, 0)


def test_two_images_are_a_class_and_say_nothing_of_its_accuracy(demo, features):
    named = [NamedImages("Bag", features("Bag")[:2])]
    learned = LearnedClasses.learn(demo, named)
    assert np.isnan(report(demo, named, learned).own)
    with pytest.raises(ValueError, match="2 images at least"):
        LearnedClasses.learn(demo, [NamedImages("Bag", features("Bag")[:1])])


def test_the_exported_layer_gives_the_same_answers(demo, features):
    learned = LearnedClasses.learn(demo, [NamedImages("Bag", features("Bag")[:40])])
    exported, asked = learned.export(), features("Bag")[40:60]
    assert exported["weight"].shape == (9, 128) and exported["weight"].dtype == np.float32
    logits = asked @ exported["weight"].T + exported["bias"]
    np.testing.assert_allclose(logits, learned.logits(asked), rtol=1e-3, atol=1e-3)
