import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import pearsonr
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from explain.head import (
    AGREEMENT,
    PENALTIES,
    RefitDidNotConverge,
    extend,
    hessian,
    refit_head,
    refit_like,
)
from explain.influence import HeadInfluence, _quadratic_forms
from tests.unit.test_bank import bank_of

L2 = 1e-2


@pytest.fixture(scope="module")
def digits():
    """Real features of three confusable digits, (537, 64), and their labels."""
    data = load_digits()
    chosen = np.isin(data.target, (3, 8, 9))
    labels = np.searchsorted((3, 8, 9), data.target[chosen])
    return data.data[chosen] / 16, labels


@pytest.fixture(scope="module")
def fitted(digits):
    features, labels = digits
    head = refit_head(features[:400], labels[:400], 3, L2)
    return head, HeadInfluence.fit(bank_of(features[:400], labels[:400]), head)


def test_the_refit_is_at_the_optimum_that_scikit_learn_finds(digits, fitted):
    features, labels = digits
    h = extend(features[:400])
    peer = LogisticRegression(
        C=1 / (L2 * 400), fit_intercept=False, tol=1e-12, max_iter=10_000
    ).fit(h, labels[:400])
    np.testing.assert_allclose(fitted[0].theta, peer.coef_, atol=1e-4)
    assert fitted[0].gradient_norm < 1e-8


def test_the_hessian_is_the_derivative_of_the_gradient(digits):
    features, labels = digits
    h, one_hot = extend(features[:60]), np.eye(3)[labels[:60]]
    rng = np.random.default_rng(0)
    theta = rng.normal(size=(3, 65))

    def gradient(flat):
        weights = flat.reshape(3, 65)
        return ((softmax(h @ weights.T, axis=1) - one_hot).T @ h / 60 + L2 * weights).ravel()

    direction = rng.normal(size=195)
    step = 1e-5 * direction
    numeric = (gradient(theta.ravel() + step) - gradient(theta.ravel() - step)) / 2e-5
    np.testing.assert_allclose(hessian(h, theta, L2) @ direction, numeric, rtol=1e-5, atol=1e-8)


def test_influence_is_what_leaving_out_and_refitting_does(digits, fitted):
    """240 actual leave-one-out refits in float64 against the closed form, on three images."""
    features, labels = digits
    head, influence = fitted
    rows = np.random.default_rng(0).choice(400, 240, replace=False)
    asked = features[400:403]
    target = head.logits(asked).argsort(axis=1)[:, -1]
    against = head.logits(asked).argsort(axis=1)[:, -2]
    index = np.arange(3)

    def margins(refitted):
        logits = refitted.logits(asked)
        return logits[index, target] - logits[index, against]

    actual = []
    for row in rows:
        kept = np.delete(np.arange(400), row)
        # The sum of losses keeps its penalty: without one image the mean's weighs 400/399 more.
        refitted = refit_head(features[kept], labels[kept], 3, L2 * 400 / 399, start=head.theta)
        actual.append(margins(refitted) - margins(head))
    for image, changes in enumerate(np.transpose(actual)):
        predicted = influence.on_margin(asked[image], target[image], against[image])[rows]
        assert pearsonr(predicted, changes).statistic > 0.99
        slope = np.polyfit(predicted, changes, 1)[0]
        assert 0.9 < slope < 1.25  # first order: it understates the largest effects


def test_float32_and_float64_agree(digits, fitted):
    features, _ = digits
    head, influence = fitted
    h = extend(features[:400])
    inverse = np.linalg.inv(hessian(h, head.theta, head.l2))
    unit = np.zeros((3, 65))
    unit[0], unit[2] = extend(features[400:401])[0], -extend(features[400:401])[0]
    moved = (inverse @ unit.ravel()).reshape(3, 65)
    exact = np.einsum("nc,cd,nd->n", influence.residuals, moved, h) / 400
    np.testing.assert_allclose(
        influence.on_margin(features[400], 0, 2), exact, atol=1e-5 * np.abs(exact).max() + 1e-7
    )


def test_self_influence_is_its_quadratic_form(digits, fitted):
    features, _ = digits
    head, influence = fitted
    inverse = np.linalg.inv(hessian(extend(features[:400]), head.theta, head.l2))
    gradients = np.einsum("nc,nd->ncd", influence.residuals, influence.features).reshape(400, -1)
    exact = np.einsum("np,pq,nq->n", gradients, inverse, gradients)
    np.testing.assert_allclose(influence.self_influence, exact, rtol=1e-3, atol=1e-6)
    assert _quadratic_forms(influence.features[:0], influence.residuals[:0], inverse).shape == (0,)


def test_helpful_images_hold_the_decision_up_and_harmful_ones_push_it_down(digits, fitted):
    features, _ = digits
    head, influence = fitted
    target, against = head.logits(features[400:401])[0].argsort()[[-1, -2]]
    found = influence.explain(features[400], target, against, 6)
    assert (found.helpful_influence < 0).all() and (found.harmful_influence > 0).all()
    everything = influence.on_margin(features[400], target, against)
    assert found.harmful_influence[0] == everything.max()
    relative = everything / np.sqrt(influence.self_influence)
    np.testing.assert_array_equal(found.helpful, np.argsort(relative)[:6])


def test_relative_influence_shows_more_different_images_than_raw(demo, demo_inspection):
    """The reason for the ranking: 200 decisions must not all be taught by the same images."""
    influence, activations = demo.influence, demo_inspection.activations
    shown, raw = [], []
    for row in range(200):
        against, target = activations.logits[row].argsort()[-2:]
        found = influence.explain(activations.features[row], target, against, 6)
        shown += found.helpful.tolist()
        raw += (
            influence.on_margin(activations.features[row], target, against).argsort()[:6].tolist()
        )
    assert len(set(shown)) > 1.5 * len(set(raw))


def test_separable_data_still_reach_an_optimum():
    features = np.vstack([np.eye(4), np.eye(4) * 1.1])
    head = refit_head(features, np.tile(np.arange(4), 2), 4, 1e-4)
    assert (head.logits(features).argmax(axis=1) == np.tile(np.arange(4), 2)).all()


def test_no_convergence_is_an_error(digits, monkeypatch):
    features, labels = digits
    monkeypatch.setattr("explain.head.GRADIENT_TOLERANCE", 1e-30)
    with pytest.raises(RefitDidNotConverge, match="gradient is still"):
        refit_head(features, labels, 3)


def test_only_images_with_trusted_labels_are_helpful(digits, fitted):
    influence, asked = fitted[1], digits[0][450]
    everyone = influence.explain(asked, 0, 1, 8)
    trusted = np.ones(len(influence.self_influence), bool)
    trusted[everyone.helpful[[0, 3]]] = False
    found = influence.explain(asked, 0, 1, 6, trusted)
    np.testing.assert_array_equal(found.helpful, np.delete(everyone.helpful, [0, 3]))
    np.testing.assert_array_equal(found.harmful, everyone.harmful[:6])
    assert len(influence.explain(asked, 0, 1, 6, ~trusted & trusted).helpful) == 0


def test_the_penalty_is_the_largest_that_keeps_the_answers(digits):
    features, labels = digits
    logits = refit_head(features, labels, 3, 3e-3).logits(features)
    head, agreement = refit_like(features, labels, logits)
    shares = {
        l2: (refit_head(features, labels, 3, l2).logits(features).argmax(1) == logits.argmax(1))
        for l2 in PENALTIES
    }
    keeping = [l2 for l2, same in shares.items() if same.mean() >= AGREEMENT]
    assert 3e-3 <= head.l2 == max(keeping) < max(PENALTIES)
    assert agreement == shares[head.l2].mean()


def test_where_none_keeps_the_answers_the_nearest_is_taken(digits):
    features, labels = digits
    logits = np.eye(3)[(labels + np.arange(len(labels)) % 2) % 3]  # half of them otherwise
    head, agreement = refit_like(features, labels, logits)
    assert agreement < AGREEMENT and head.l2 in PENALTIES
