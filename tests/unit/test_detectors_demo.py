"""The detectors on real features: the demo's classifier, Fashion-MNIST."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from models.bank import Bank, normalise_rows
from ood.combination import COMBINATIONS
from ood.detectors import DETECTORS, LayeredMahalanobis, RelativeMaxima

# ASH, which prunes nine features in ten, does not work on this network's 128 at all.
WORKING = [*COMBINATIONS, *(name for name in DETECTORS if name != "ash")]


@pytest.fixture(scope="module")
def seen(demo, fashion_test):
    """300 known and 300 unknown test images, as the demo's classifier saw them."""
    pixels, _, known = fashion_test
    rows = np.concatenate([np.flatnonzero(known)[:300], np.flatnonzero(~known)[:300]])
    return demo.bank.locate(demo.classifier.observe(pixels[rows]))


@pytest.fixture(scope="module")
def training(demo):
    images = demo.bank.images
    features = torch.tensor(np.asarray(images.activations.features, np.float32))
    return features, torch.tensor(np.asarray(images.labels)).long()


def rank_agreement(a, b) -> float:
    return spearmanr(np.asarray(a, np.float64), np.asarray(b, np.float64)).statistic


@pytest.mark.parametrize("name", WORKING)
def test_unknown_classes_score_higher(demo, seen, name):
    scores = demo.panel.score(seen)[name]
    assert np.median(scores[300:]) > np.median(scores[:300])


def test_mahalanobis_ranks_as_pytorch_ood_on_normalised_features(demo, seen, training):
    from pytorch_ood.detector import Mahalanobis

    features, labels = training
    peer = Mahalanobis(None).fit_features(torch.tensor(normalise_rows(features)), labels)
    theirs = peer.predict_features(torch.tensor(normalise_rows(seen.features)))
    assert rank_agreement(demo.panel.detectors["mds++"].score(seen), theirs) > 0.9999


def test_vim_ranks_as_pytorch_ood(demo, seen, training, monkeypatch):
    """pytorch-ood rounds to float32 before its eigenvectors, which here mixes the 64th (8.5e-4)
    with the 65th (8.8e-4): rank agreement 0.99988. Its own code, kept in float64, agrees."""
    from pytorch_ood.detector import ViM

    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    head = demo.classifier.head
    weight, bias = (torch.tensor(a, dtype=torch.float64) for a in (head.weight, head.bias))
    peer = ViM(None, d=64, w=weight, b=bias).fit_features(*training)
    theirs = peer.predict_features(torch.tensor(seen.features))
    assert theirs.dtype == torch.float64
    assert rank_agreement(demo.panel.detectors["vim"].score(seen), theirs) > 0.99999


def test_layered_detectors_are_the_distances_by_the_book(demo, seen):
    """A second route: explicit inverses in float64, one class at a time, no identity used."""
    images = demo.calibration.images  # they have means and maxima, unlike the finished Bank
    bank = Bank(images, demo.bank.head)
    labels = np.asarray(images.labels)
    rows = np.arange(0, 600, 10)

    def end_to_end(layers):
        return np.hstack([x / np.linalg.norm(np.float64(x), axis=1, keepdims=True) for x in layers])

    def inverse(covariance):
        ridge = 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        return np.linalg.inv(covariance + ridge)

    def distances(vectors, queries):
        means = np.stack([vectors[labels == c].mean(axis=0) for c in range(8)])
        within, all_of = vectors - means[labels], vectors - vectors.mean(axis=0)
        precision = inverse(within.T @ within / len(vectors))
        to_class = [np.einsum("nd,de,ne->n", queries - m, precision, queries - m) for m in means]
        around = queries - vectors.mean(axis=0)
        to_all = np.einsum("nd,de,ne->n", around, inverse(all_of.T @ all_of / len(vectors)), around)
        return np.min(to_class, axis=0), to_all

    a, b = images.activations, seen.take(rows)
    nearest, _ = distances(
        end_to_end((*a.means, *a.maxima, a.features)), end_to_end((*b.means, *b.maxima, b.features))
    )
    ours = LayeredMahalanobis.fit(bank, None).score(b)
    assert rank_agreement(ours, nearest) > 0.99  # 448 numbers for 4,000 images: shrunk a little
    nearest, to_all = distances(end_to_end(a.maxima), end_to_end(b.maxima))
    relative = RelativeMaxima.fit(bank, None).score(b)
    np.testing.assert_allclose(relative, nearest - to_all, rtol=1e-2, atol=0.5)
