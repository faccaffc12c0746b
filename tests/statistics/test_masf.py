"""MaSF's p-values: by brute force, and uniform on images that nothing was fitted on."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import chi2, ks_2samp, kstest

from models.activations import Activations
from models.bank import Bank, TuningSet
from ood.detectors.masf import MaSF, simes, stack_layers


def test_simes_by_the_formula():
    p = np.random.default_rng(0).uniform(size=(50, 7))
    expected = [min(7 * q / (i + 1) for i, q in enumerate(sorted(row))) for row in p]
    np.testing.assert_allclose(simes(p), expected)
    independent = simes(np.random.default_rng(1).uniform(size=(20_000, 30)))
    assert kstest(independent, "uniform").pvalue > 0.01  # exact when independent


@pytest.fixture(scope="module")
def halves(demo):
    """A Bank of 2,000 calibration images, and the other 2,000: they have means and maxima."""
    images = demo.calibration.images
    order = np.random.default_rng(0).permutation(len(images))
    bank = Bank(images.take(order[:2000]), demo.bank.head)
    return bank, images.take(order[2000:])


def test_p_values_are_uniform_over_twenty_splits_of_held_out_images(halves):
    """A split is a tuning set and 250 new images; one in a hundred may miss p > 0.01 by chance."""
    bank, held_out = halves
    missed = 0
    for split in range(20):
        order = np.random.default_rng(split).permutation(len(held_out))
        tuning = TuningSet(held_out.take(order[:1750]), bank)
        new = bank.locate(held_out.take(order[1750:]).activations)
        p_values = MaSF.fit(bank, tuning).explain(new).p_values
        missed += kstest(p_values, "uniform").pvalue <= 0.01
    assert missed <= 1


def test_chi_square_and_the_training_images_own_null_would_not_do(halves):
    """The positive controls: a null that forgets dependence, and one that was fitted on."""
    bank, held_out = halves
    tuning = TuningSet(held_out.take(np.arange(0, 2000, 2)), bank)
    new = held_out.take(np.arange(1, 2000, 2)).activations
    masf = MaSF.fit(bank, tuning)
    statistic = masf.explain(new).statistic
    assert (chi2.sf(statistic, 2 * len(masf.layers)) <= 0.01).mean() > 0.02
    assert (masf.explain(new).p_values <= 0.01).mean() <= 0.02
    own = masf.explain(bank.images.activations).statistic
    assert ks_2samp(own, statistic).pvalue < 1e-6


def test_evidence_by_brute_force(halves):
    """A second route for channels: count, class by class, among the Bank's images."""
    bank, held_out = halves
    masf = MaSF.fit(bank, TuningSet(held_out, bank))
    rows = np.arange(40)
    some = held_out.activations.take(rows)
    evidence = masf.explain(some)
    seen = np.concatenate(stack_layers(bank.images.activations), axis=1)
    asked = np.concatenate(stack_layers(some), axis=1)
    labels = np.asarray(bank.images.labels)
    for row, predicted in enumerate(some.logits.argmax(axis=1)):
        same = seen[labels == predicted]
        upper, lower = (same >= asked[row]).mean(axis=0), (same <= asked[row]).mean(axis=0)
        expected = np.minimum(2 * np.minimum(upper, lower), 1)
        clear = np.minimum(upper, lower) > 0.02  # quantiles of 250 images are coarse in the tails
        error = np.abs(evidence.channels[row] - expected)[clear]
        assert np.quantile(error, 0.99) < 0.06 and error.max() < 0.2
    ends = np.cumsum(masf.layers)[:-1]
    layers = np.stack([simes(p) for p in np.split(evidence.channels, ends, axis=1)], axis=1)
    np.testing.assert_allclose(evidence.layers, layers)
    np.testing.assert_allclose(evidence.statistic, -2 * np.log(layers).sum(axis=1), rtol=1e-5)


def test_the_exciting_images_excite_most(halves):
    bank, held_out = halves
    masf = MaSF.fit(bank, TuningSet(held_out, bank))
    seen = np.concatenate(stack_layers(bank.images.activations), axis=1)
    for channel in (0, 100, masf.layers.sum() - 1):
        found = seen[masf.exciting[channel], channel]
        np.testing.assert_array_equal(found, np.sort(seen[:, channel])[::-1][:4])


def test_many_classes_share_one_table(monkeypatch, halves):
    monkeypatch.setattr("ood.detectors.masf.LARGEST_TABLE", 1000)
    bank, held_out = halves
    masf = MaSF.fit(bank, TuningSet(held_out, bank))
    assert len(masf.values) == 1
    assert np.isfinite(masf.score(held_out.activations)).all()


def test_a_network_without_stages_has_one_layer():
    rng = np.random.default_rng(0)
    activations = Activations(rng.normal(size=(300, 3)), rng.normal(size=(300, 5)))
    images = SimpleNamespace(activations=activations, labels=np.arange(300) % 3)
    bank = SimpleNamespace(images=images, num_classes=3)
    masf = MaSF.fit(bank, SimpleNamespace(activations=activations))
    assert masf.layers.tolist() == [5]
