import numpy as np
import pytest

from models.activations import Activations, Head
from ood.layer_choice import PENULTIMATE, Layer, choose_layer


def world(seed=0, per_class=120, classes=4):
    """A stage that tells all classes apart, one that tells none, and penultimate features.

    The penultimate ones are at neural collapse: each class on the axis of its own logit.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), per_class))
    places = 30 * rng.normal(size=(classes, 12)) + 100
    good = places[labels] + rng.normal(size=(len(labels), 12)) * 4
    noise = rng.normal(size=(len(labels), 12)) + 50
    features = 6 * np.eye(classes)[labels] + 0.3 * rng.normal(size=(len(labels), classes))
    logits = features.copy()
    stages = tuple(stage.astype(np.float32) for stage in (noise, good))
    head = Head(np.eye(classes, dtype=np.float32), np.zeros(classes, np.float32))
    return Activations(logits, features.astype(np.float32), stages, stages), labels, head


def test_the_layer_that_keeps_classes_apart_is_chosen():
    activations, labels, head = world()
    choice = choose_layer(activations, labels, head)
    assert [layer.stage for layer in choice.layers] == [0, 1, PENULTIMATE]
    assert choice.scores.shape == (3, 4)
    assert choice.best == 1
    assert (choice.scores[1] > 0.95).all() and (choice.scores[0] < 0.5).all()


def test_a_collapsed_last_layer_does_not_win_by_knowing_the_hidden_class():
    activations, labels, head = world()
    collapsed = choose_layer(activations, labels, head).scores[2]
    # The same numbers as a stage, from which nothing is taken: they would look perfect.
    as_stage = Activations(activations.logits, activations.features, (activations.features,))
    looks = choose_layer(as_stage, labels, head).scores[0]
    assert (looks > 0.95).all()
    assert collapsed.mean() < 0.8


def test_a_last_layer_with_more_than_its_head_needs_wins():
    """What lies outside of the hidden class's own direction survives."""
    activations, labels, _ = world()
    rng = np.random.default_rng(1)
    places = rng.normal(size=(4, 3))
    features = 6 * places[labels] + 0.3 * rng.normal(size=(len(labels), 3))
    noise = activations.means[:1]
    head = Head(places.astype(np.float32), np.zeros(4, np.float32))
    choice = choose_layer(Activations(activations.logits, features, noise), labels, head)
    assert choice.best == 1


def test_layers_read_other_images_as_they_read_the_training_images():
    activations, *_ = world()
    values = activations.means[1]
    layer = Layer.of_stage(1, activations)
    expected = (values - values.mean(axis=0)) / values.std(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(layer.features(activations), expected, atol=1e-4)
    rows = np.array([3, 5])
    np.testing.assert_allclose(
        layer.features(activations.take(rows)), layer.features(activations)[rows], atol=1e-6
    )
    last = Layer.penultimate(activations).features(activations)
    lengths = np.linalg.norm(activations.features, axis=1, keepdims=True)
    np.testing.assert_allclose(last, activations.features / lengths, atol=1e-6)
    assert layer.features(activations.take(np.empty(0, int))).shape == (0, 12)


def test_a_channel_that_never_answers_does_no_harm():
    activations, labels, head = world()
    dead = np.concatenate([activations.means[1], np.zeros((len(labels), 2), np.float32)], axis=1)
    choice = choose_layer(
        Activations(activations.logits, activations.features, (dead,)), labels, head
    )
    assert choice.best == 0 and choice.scores[0].min() > 0.95


def test_classes_without_images_and_few_images():
    activations, labels, head = world()
    rows = np.flatnonzero(labels != 2)
    choice = choose_layer(activations.take(rows), labels[rows], head)
    assert np.isnan(choice.scores[:, 2]).all() and np.isfinite(choice.scores[:, [0, 1, 3]]).all()
    assert choice.best == 2  # ahead by three classes is not beyond doubt
    for count in (1, 2):
        rows = np.arange(count)
        few = choose_layer(activations.take(rows), labels[rows], head)
        assert 0 <= few.best <= 2
    equal = Activations(np.zeros((9, 2)), np.ones((9, 3)), (np.ones((9, 4)),))
    two = Head(np.ones((2, 3)), np.zeros(2))
    assert np.isfinite(choose_layer(equal, np.arange(9) % 2, two).scores).all()


def test_the_same_again():
    activations, labels, head = world()
    first, again = (choose_layer(activations, labels, head) for _ in range(2))
    np.testing.assert_array_equal(first.scores, again.scores)


def test_bad_input_is_refused():
    activations, labels, head = world()
    with pytest.raises(ValueError, match="3 labels for 480 images"):
        choose_layer(activations, labels[:3], head)
    with pytest.raises(ValueError, match="give some"):
        choose_layer(activations.take(np.empty(0, int)), labels[:0], head)
    activations.means[0][:, 0] = np.nan
    with pytest.raises(ValueError, match="not all finite"):
        choose_layer(activations, labels, head)
