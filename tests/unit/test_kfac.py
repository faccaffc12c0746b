from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import pearsonr
from sklearn.datasets import load_digits

from explain.head import RefittedHead, extend, refit_head
from explain.influence import HeadInfluence
from explain.kfac import KFACFactors, KFACInfluence
from models.activations import Activations, Head
from models.bank import Bank
from ood.store import load_fitted, save_fitted
from tests.unit.test_bank import observed


def bank_with(features, labels, theta, dtype=np.float32) -> Bank:
    """A Bank whose last layer is theta, (C, D + 1)."""
    features = np.asarray(features, dtype)
    logits = (extend(features) @ theta.T).astype(dtype)
    images = observed(np.asarray(features, np.float32), labels)
    images = replace(images, activations=Activations(logits=logits, features=features))
    return Bank(images, Head(theta[:, :-1].astype(np.float32), theta[:, -1].astype(np.float32)))


def some_bank(seed, n=600, dim=12, classes=7, dtype=np.float32, sharpness=1.0) -> Bank:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, dim)) * np.linspace(0.2, 3, dim)
    theta = sharpness * rng.normal(size=(classes, dim + 1))
    labels = (extend(features) @ theta.T + rng.gumbel(size=(n, classes))).argmax(axis=1)
    return bank_with(features, labels, theta, dtype)


def influence_of(bank, damping=1e-3):
    return KFACInfluence.of(bank, KFACFactors.fit(bank, damping))


def test_the_eigenvalues_are_second_moments_over_every_label():
    """Second route: each image's gradient for each label it could have, weighed, in float64."""
    bank = some_bank(0, n=40, dim=5, classes=4)
    factors = KFACFactors.fit(bank)
    h = extend(bank.images.activations.features)
    p = softmax(bank.images.activations.logits.astype(np.float64), axis=1)
    expected = np.zeros((4, 6))
    for row in range(40):
        for label in range(4):
            gradient = np.outer(p[row] - np.eye(4)[label], h[row])
            rotated = factors.class_basis.T @ gradient @ factors.feature_basis
            expected += p[row, label] * rotated**2 / 40
    np.testing.assert_allclose(factors.eigenvalues, expected, rtol=1e-4, atol=1e-6)


def test_the_bases_are_those_of_the_kronecker_factors():
    bank = some_bank(1)
    factors = KFACFactors.fit(bank)
    h = extend(bank.images.activations.features)
    p = softmax(bank.images.activations.logits.astype(np.float64), axis=1)
    for basis, moment in (
        (factors.feature_basis, h.T @ h / 600),
        (factors.class_basis, np.diag(p.mean(axis=0)) - p.T @ p / 600),
    ):
        rotated = basis.T @ moment @ basis
        np.testing.assert_allclose(rotated, np.diag(np.diag(rotated)), atol=1e-5)
        np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), atol=1e-5)


def test_influences_are_those_of_the_curvature_written_out():
    bank = some_bank(2)
    influence = influence_of(bank)
    factors = influence.factors
    basis = np.kron(factors.class_basis, factors.feature_basis).astype(np.float64)
    inverse = basis / (factors.eigenvalues.ravel() + 1e-3) @ basis.T
    h = extend(bank.images.activations.features)
    d = softmax(bank.images.activations.logits.astype(np.float64), axis=1)
    d[np.arange(600), bank.images.labels] -= 1
    gradients = np.einsum("nc,nd->ncd", d, h).reshape(600, -1)
    asked = np.random.default_rng(0).normal(size=12)
    unit = np.zeros((7, 13))
    unit[3], unit[5] = np.append(asked, 1), -np.append(asked, 1)
    exact = gradients @ inverse @ unit.ravel() / 600
    got = influence.on_margin(asked, 3, 5)
    np.testing.assert_allclose(got, exact, atol=1e-5 * np.abs(exact).max())
    own = np.einsum("np,pq,nq->n", gradients, inverse, gradients)
    np.testing.assert_allclose(factors.self_influence, own, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(factors.squares, (gradients**2).sum(axis=1), rtol=1e-4, atol=1e-9)


def test_where_curvature_is_a_kronecker_product_it_is_the_exact_hessians():
    """All weights zero: every image has the same probabilities, so that H is exactly S (x) A."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(300, 8)), rng.integers(0, 4, 300)
    theta = np.zeros((4, 9))
    bank = bank_with(features, labels, theta)
    exact = HeadInfluence.fit(bank, RefittedHead(theta, 1e-2, 0.0))
    near = influence_of(bank, 1e-2)
    scores = exact.on_margin(features[5], 2, 0)
    np.testing.assert_allclose(
        near.on_margin(features[5], 2, 0), scores, atol=1e-4 * np.abs(scores).max()
    )
    np.testing.assert_allclose(near.factors.self_influence, exact.self_influence, rtol=1e-3)


def test_at_an_optimum_it_ranks_as_the_exact_hessian_does():
    data = load_digits()
    features, labels = data.data[:500] / 16, data.target[:500]
    head = refit_head(features, labels, 10, 1e-2)
    bank = bank_with(features, labels, head.theta)
    exact, near = HeadInfluence.fit(bank, head), influence_of(bank, 1e-2)
    against, target = head.logits(features[:1])[0].argsort()[-2:]
    asked = features[0], target, against
    assert pearsonr(near.on_margin(*asked), exact.on_margin(*asked)).statistic > 0.8


def assert_same_as_full_scan(influence, asked, target, against, k):
    everything = influence.on_margin(asked, target, against)
    root = np.sqrt(np.maximum(influence.factors.self_influence, 1e-12))
    explained = influence.explain(asked, target, against, k)
    strongest = influence.strongest(asked, target, against, k)
    for rows, values, scores in (
        (explained.helpful, explained.helpful_influence, -everything / root),
        (explained.harmful, explained.harmful_influence, everything),
        (strongest.helpful, strongest.helpful_influence, -everything),
        (strongest.harmful, strongest.harmful_influence, everything),
    ):
        expected = np.sort(scores[scores > 0])[::-1][:k]
        near = 2e-6 * np.abs(scores).max()  # what float32 cannot tell apart may trade places
        np.testing.assert_allclose(scores[rows][: len(expected)], expected, atol=near)
        assert abs(len(rows) - len(expected)) <= (scores[scores > 0] < near).sum()
        np.testing.assert_allclose(values, everything[rows], atol=1e-5 * np.abs(everything).max())
        assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_found_is_what_a_full_scan_finds(seed):
    rng = np.random.default_rng(seed)
    n, dim, classes = int(rng.integers(1, 3000)), int(rng.integers(1, 40)), rng.integers(2, 30)
    dtype = np.float16 if seed % 2 else np.float32
    bank = some_bank(seed, n, dim, int(classes), dtype, rng.choice([0.01, 0.3, 3]))
    influence = influence_of(bank, 10.0 ** rng.uniform(-6, -1))
    target, against = rng.choice(classes, 2, replace=False)
    for k in (1, 7, n + 2):
        assert_same_as_full_scan(influence, 3 * rng.standard_normal(dim), target, against, k)


def test_the_shortlist_is_short_where_curvature_is_near_a_kronecker_product(monkeypatch):
    influence, scored = influence_of(some_bank(3, 6000, 30, 40, sharpness=0.3)), []
    exactly = KFACInfluence._exactly

    def counted(self, rows, rotated):
        scored.append(len(rows))
        return exactly(self, rows, rotated)

    monkeypatch.setattr(KFACInfluence, "_exactly", counted)
    influence.strongest(np.random.default_rng(0).normal(size=30), 1, 2, 10)
    assert 0 < sum(scored) < 200


def test_it_predicts_with_the_layer_it_was_given():
    bank = some_bank(4)
    influence, activations = influence_of(bank), bank.images.activations
    for row in range(20):
        assert influence.predict(activations.features[row]) == activations.logits[row].argmax()


def test_factors_are_plain_arrays_that_come_back_as_they_were(tmp_path):
    bank = some_bank(5)
    factors = KFACFactors.fit(bank)
    save_fitted(factors, tmp_path / "factors.safetensors")
    again = KFACInfluence.of(bank, load_fitted(KFACFactors, tmp_path / "factors.safetensors"))
    asked = np.ones(12)
    np.testing.assert_array_equal(
        again.on_margin(asked, 0, 1), KFACInfluence.of(bank, factors).on_margin(asked, 0, 1)
    )


def test_fitting_twice_gives_the_same():
    """No label is sampled."""
    first, second = KFACFactors.fit(some_bank(6)), KFACFactors.fit(some_bank(6))
    np.testing.assert_array_equal(first.eigenvalues, second.eigenvalues)


def test_what_cannot_be_fitted_or_asked_is_refused():
    bank = some_bank(7, n=30)
    with pytest.raises(ValueError, match="divides"):
        KFACFactors.fit(replace(bank, head=replace(bank.head, divided=True)))
    with pytest.raises(ValueError, match="no training images"):
        KFACFactors.fit(replace(bank, images=bank.images.take(np.empty(0, int))))
    influence = influence_of(bank)
    for ask in (influence.explain, influence.strongest):
        with pytest.raises(ValueError, match="not all finite"):
            ask(np.full(12, np.nan), 0, 1, 3)


def test_only_images_with_trusted_labels_are_helpful():
    influence = influence_of(some_bank(3))
    asked = np.random.default_rng(1).normal(size=12).astype(np.float32), 2, 4
    everyone = influence.explain(*asked, 8)
    trusted = np.ones(600, bool)
    trusted[everyone.helpful[[0, 3]]] = False
    found = influence.explain(*asked, 6, trusted)
    np.testing.assert_array_equal(found.helpful, np.delete(everyone.helpful, [0, 3]))
    np.testing.assert_array_equal(found.harmful, everyone.harmful[:6])
