import numpy as np

from app.inbox_contents import Vectors
from app.novelty_layer import NoveltyLayer
from ood.layer_choice import choose_layer
from ood.store import load_fitted, save_fitted
from tests.unit.test_layer_choice import world


def test_the_inbox_keeps_what_the_chosen_layer_needs(tmp_path):
    """Read from the inbox or from a pass, an image has the same place at the layer."""
    activations, labels, head = world()
    chosen = NoveltyLayer.of(choose_layer(activations, labels, head))
    save_fitted(chosen, tmp_path / "layer.safetensors")
    chosen = load_fitted(NoveltyLayer, tmp_path / "layer.safetensors")
    assert chosen.stage == 1 and chosen.scores.shape == (3,) and chosen.scores[1] > 0.95
    kept = chosen.kept(activations)
    assert len(kept) == 1 and kept[0].shape == (len(labels), 12)
    features = chosen.features(Vectors(activations.features, kept))
    np.testing.assert_array_equal(features, chosen.layer.features(activations))


def test_a_workspace_of_before_looks_at_the_last_layer():
    activations, *_ = world()
    layer = NoveltyLayer.penultimate(activations)
    assert layer.kept(activations) == () and len(layer.scores) == 0
    features = layer.features(Vectors(activations.features, ()))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
