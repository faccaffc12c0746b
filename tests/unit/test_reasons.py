"""Reasons sum to the scores they explain, by another route, in float64."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

from models.activations import Activations
from models.bank import normalise_rows
from ood.detectors import KNN, LayeredMahalanobis, Mahalanobis, MahalanobisPlusPlus, ViM
from ood.detectors.masf import MaSF, stack_layers
from ood.directions import (
    Spread,
    class_distance,
    contributions,
    dominant_directions,
    layer_shares,
)
from ood.reasons import evidence_parts, evidence_reason, layer_reason, neighbour_reason
from tests.unit.test_bank import bank_of, observed, tuning_of

DIM = 12
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 900)
FEATURES = 3 * RNG.normal(size=(3, DIM))[LABELS] + RNG.normal(size=(900, DIM)) * np.geomspace(
    1, 0.1, DIM
)
BANK = bank_of(FEATURES, LABELS)
TUNING = tuning_of(BANK)
ASKED = BANK.locate(observed(RNG.normal(size=(5, DIM)) * 2, seed=7).activations)
CLASSES = np.arange(3)


def within_class(vectors, labels):
    """Class means and covariance within classes, with the ridge, in float64."""
    means = np.stack([vectors[labels == c].mean(axis=0) for c in np.unique(labels)])
    around = vectors - means[np.searchsorted(np.unique(labels), labels)]
    covariance = around.T @ around / len(vectors)
    ridge = 2.0**-23 * np.sqrt(len(vectors) * np.diag(covariance).max() * np.trace(covariance))
    return means, covariance + ridge * np.eye(len(covariance))


@pytest.mark.parametrize("kind", [Mahalanobis, MahalanobisPlusPlus])
def test_directions_sum_to_the_distance(kind):
    detector = kind.fit(BANK, TUNING)
    spread = Spread.of(detector)
    vectors = np.float64(detector.vectors(BANK.images.activations))
    means, covariance = within_class(vectors, LABELS)
    variances, axes = np.linalg.eigh(covariance)
    for row, x in enumerate(np.float64(detector.vectors(ASKED))):
        all_distances = [(x - m) @ np.linalg.solve(covariance, x - m) for m in means]
        nearest = int(np.argmin(all_distances))
        terms = np.square((x - means[nearest]) @ axes) / variances
        found = np.square(contributions(detector, spread, ASKED, row))
        np.testing.assert_allclose(np.sort(found), np.sort(terms), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.sum(), detector.score(ASKED)[row], rtol=1e-4)
        distance = class_distance(detector, ASKED, row, CLASSES, np.arange(5.0))
        assert distance.nearest == nearest and distance.usual == 2
        assert distance.runner_up == np.argsort(all_distances)[1]
        np.testing.assert_allclose(distance.distance, all_distances[nearest], rtol=1e-4)
        np.testing.assert_allclose(
            distance.runner_up_distance, np.sort(all_distances)[1], rtol=1e-4
        )


def test_the_spread_is_that_of_the_covariance():
    detector = Mahalanobis.fit(BANK, TUNING)
    spread = Spread.of(detector)
    _, covariance = within_class(np.float64(BANK.images.activations.features), LABELS)
    rebuilt = spread.directions * spread.variances @ spread.directions.T
    np.testing.assert_allclose(rebuilt, covariance, atol=1e-5)
    assert (np.diff(spread.variances) <= 0).all()


def test_a_direction_is_shown_by_the_training_images_at_its_ends():
    detector = Mahalanobis.fit(BANK, TUNING)
    spread = Spread.of(detector)
    deviations = contributions(detector, spread, ASKED, 0)
    directions = dominant_directions(detector, spread, ASKED, 0, BANK)
    order = np.argsort(-np.abs(deviations))
    nearest = class_distance(detector, ASKED, 0, CLASSES, np.ones(1)).nearest
    assert len(directions) == 3
    for direction, k in zip(directions, order, strict=False):
        axis = spread.directions[:, k] * np.sign(deviations[k])
        places = BANK.images.activations.features @ axis
        np.testing.assert_array_equal(direction.along, np.argsort(-places)[:4])
        np.testing.assert_array_equal(direction.opposite, np.argsort(places)[:4])
        own = places[nearest == LABELS]
        assert direction.compared == len(own)
        beyond = (own >= ASKED.features[0] @ axis).mean()
        assert direction.beyond == pytest.approx(beyond, abs=2 / len(own))
        assert direction.deviations == pytest.approx(abs(deviations[k]))
    shares = [d.share for d in directions]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1


def test_many_training_images_are_sampled_evenly(monkeypatch):
    monkeypatch.setattr("ood.directions.SAMPLE", 300)
    detector = Mahalanobis.fit(BANK, TUNING)
    directions = dominant_directions(detector, Spread.of(detector), ASKED, 0, BANK)
    assert all((d.along % 3 == 0).all() for d in directions)


def test_layers_sum_to_the_whole_and_each_is_its_block():
    detector = LayeredMahalanobis.fit(BANK, TUNING)
    vectors = np.float64(detector.vectors(BANK.images.activations))
    means, covariance = within_class(vectors, LABELS)
    for row, x in enumerate(np.float64(detector.vectors(ASKED))):
        products = [(x - m) * np.linalg.solve(covariance, x - m) for m in means]
        products = min(products, key=sum)
        # Means of 4 channels, maxima of 4, then the features; the first two are one stage.
        parts = [products[:8].sum(), products[8:].sum()] / products.sum()
        found = layer_shares(detector, ASKED, row)
        np.testing.assert_allclose(found, parts, rtol=1e-2, atol=1e-3)
        assert found.sum() == pytest.approx(1)


def test_layers_of_pooled_and_of_long_stages_keep_their_widths():
    def wide(n, seed):
        rng = np.random.default_rng(seed)
        numbers = [rng.normal(size=(n, k)).astype(np.float32) for k in (3, 6, 3, 6, 600)]
        return Activations(numbers[0], numbers[1], (numbers[2],), (numbers[3], numbers[4]))

    bank = replace(BANK, images=replace(BANK.images, activations=wide(900, 1)))
    detector = LayeredMahalanobis.fit(bank, TUNING)
    shares = layer_shares(detector, wide(2, 2), 1)
    assert shares.shape == (3,) and shares.sum() == pytest.approx(1)
    assert shares.argmax() == 1  # 512 of 527 numbers


def test_neighbours_end_with_the_one_that_sets_the_distance():
    detector = KNN.fit(BANK, TUNING)
    calibration = np.linspace(0, 2, 101)
    reason = neighbour_reason(detector, ASKED, 2, calibration)
    units = normalise_rows(FEATURES)
    distances = np.linalg.norm(units - normalise_rows(ASKED.features)[2], axis=1)
    np.testing.assert_array_equal(reason.ranks, [1, 2, 3, 4, 5, 50])
    np.testing.assert_array_equal(reason.rows, np.argsort(distances)[reason.ranks - 1])
    assert reason.distances[-1] == detector.score(ASKED)[2]
    assert reason.usual == 1
    assert reason.as_far == (calibration >= reason.distances[-1]).mean()


def test_vim_is_its_two_parts():
    detector = ViM.fit(BANK, TUNING)
    normal = evidence_parts(detector, TUNING.activations)
    reason = evidence_reason(detector, ASKED, 1, normal)
    assert reason.residual - reason.energy == pytest.approx(detector.score(ASKED)[1], rel=1e-5)
    assert reason.energy == pytest.approx(logsumexp(np.float64(ASKED.logits[1])))
    assert reason.as_moved == (normal.residual >= reason.residual).mean()
    assert reason.as_weak == (normal.energy <= reason.energy).mean()
    np.testing.assert_array_equal(reason.classes, np.argsort(-ASKED.logits[1]))


def test_the_oddest_channels_are_those_that_were_moved():
    detector = MaSF.fit(BANK, TUNING)
    rows = [0, 1]
    usual = BANK.images.activations.take(np.array(rows))
    stage, features = usual.maxima[0].copy(), usual.features.copy()
    stage[0, 2], features[0, 5] = 40, -90
    odd = Activations(usual.logits, features, usual.means, (stage,))
    reason = layer_reason(detector, odd, 0)
    first, second = reason.channels[:2]
    assert {(c.layer, c.channel, c.kind, c.stronger) for c in (first, second)} == {
        (0, 2, "maximum", True), (1, 5, "feature", False),
    }  # fmt: skip
    assert reason.label == odd.logits[0].argmax()
    assert reason.size == np.bincount(LABELS)[reason.label]
    evidence = detector.explain(odd)
    np.testing.assert_array_equal(reason.p_values, evidence.layers[0])
    assert first.p_value == evidence.channels[0].min()
    numbers = np.concatenate(stack_layers(BANK.images.activations), axis=1)
    maximum = first if first.kind == "maximum" else second
    np.testing.assert_array_equal(maximum.exciting, np.argsort(-numbers[:, 4 + 2])[:4])
    keys = [(c.layer, c.channel) for c in reason.channels]
    assert len(set(keys)) == len(keys) == 4


def single_image():
    return bank_of(RNG.normal(size=(1, DIM)), [1])


def identical_images():
    return bank_of(np.ones((30, DIM)), np.arange(30) % 3)


def one_class():
    return bank_of(FEATURES, np.full(900, 2))


@pytest.mark.parametrize("make", [single_image, identical_images, one_class])
def test_degenerate_training_sets_have_reasons_too(make):
    bank = make()
    tuning = tuning_of(bank)
    asked = bank.locate(ASKED)
    classes = np.unique(bank.images.labels)
    detector = MahalanobisPlusPlus.fit(bank, tuning)
    spread = Spread.of(detector)
    distance = class_distance(detector, asked, 0, classes, detector.score(tuning.activations))
    assert distance.nearest in classes and np.isfinite(distance.distance)
    assert (distance.runner_up is None) == (len(classes) == 1)
    found = contributions(detector, spread, asked, 0)
    np.testing.assert_allclose(np.square(found).sum(), distance.distance, rtol=1e-3)
    for direction in dominant_directions(detector, spread, asked, 0, bank):
        assert (direction.along < len(bank.images)).all() and 0 <= direction.beyond <= 1
    shares = layer_shares(LayeredMahalanobis.fit(bank, tuning), asked, 0)
    assert shares.sum() == pytest.approx(1)
    knn = KNN.fit(bank, tuning)
    assert neighbour_reason(knn, asked, 0, np.ones(3)).ranks[-1] == knn.k
    vim = ViM.fit(bank, tuning)
    parts = evidence_parts(vim, tuning.activations)
    assert np.isfinite(evidence_reason(vim, asked, 0, parts).residual)


@pytest.mark.parametrize("make", [single_image, identical_images, one_class])
def test_channels_that_never_vary_have_p_values_too(make):
    bank = make()
    reason = layer_reason(MaSF.fit(bank, tuning_of(bank)), ASKED, 0)
    assert np.isfinite(reason.p_values).all() and len(reason.channels) == 4


def test_an_image_at_the_mean_of_its_class_has_no_directions():
    detector = Mahalanobis.fit(identical_images(), TUNING)
    at_mean = observed(np.ones((1, DIM))).activations
    assert dominant_directions(detector, Spread.of(detector), at_mean, 0, identical_images()) == []
