import numpy as np
import pytest
import torch

from explain.attribution import integrated_gradients
from explain.map import fit_map, place
from models.activations import Neighbours


def test_attributions_add_up_to_what_they_explain(demo, fashion_test):
    """Completeness: their sum is the logit's rise over the black image's."""
    network = demo.classifier.network
    for row in range(8):
        pixels = fashion_test[0][row]
        with torch.inference_mode():
            image, black = network(demo.classifier.inputs(np.stack([pixels, 0 * pixels])))
        target = int(image.argmax())
        found = integrated_gradients(demo.classifier, pixels, target)
        assert found.shape == (28, 28) and found.dtype == np.float32
        assert found.sum() == pytest.approx(float(image[target] - black[target]), rel=0.1)


def test_attribution_leaves_no_gradient_behind(demo, fashion_test):
    integrated_gradients(demo.classifier, fashion_test[0][0], 0)
    assert all(p.grad is None and not p.requires_grad for p in demo.classifier.network.parameters())


def test_known_images_land_among_their_class(demo, demo_inspection, fashion_test):
    """Of the ten training images nearest on the map, most are of the class predicted."""
    labels = np.asarray(demo.bank.images.labels)
    rows = np.flatnonzero(fashion_test[2])[:200]
    agree = []
    for row in rows:
        distances = np.linalg.norm(demo.coordinates - demo_inspection.places[row], axis=1)
        nearest = labels[np.argsort(distances)[:10]]
        agree.append((nearest == demo_inspection.predicted[row]).mean())
    assert np.mean(agree) > 0.8


def test_a_training_image_lands_on_itself():
    coordinates = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    distances = np.full((1, 15), 0.4, np.float32)
    distances[0, 0] = 1e-4
    places = place(Neighbours(np.arange(15)[None], distances), coordinates)
    np.testing.assert_allclose(places[0], coordinates[0], atol=1e-4)


def test_equal_distances_give_the_mean():
    coordinates = np.random.default_rng(0).normal(size=(15, 2)).astype(np.float32)
    places = place(Neighbours(np.arange(15)[None], np.zeros((1, 15), np.float32)), coordinates)
    np.testing.assert_allclose(places[0], coordinates.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 29])
def test_small_sets_have_a_map_too(n):
    plane = fit_map(np.random.default_rng(0).normal(size=(n, 5)))
    assert plane.shape == (n, 2) and np.isfinite(plane).all()


def test_the_map_is_seeded():
    features = np.random.default_rng(0).normal(size=(200, 8))
    np.testing.assert_array_equal(fit_map(features), fit_map(features))
