import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from explain.head import RefittedHead, extend, hessian, refit_head
from explain.influence import HeadInfluence, tall_product
from explain.search import both_largest, largest, top
from tests.unit.test_bank import bank_of

L2 = 1e-2


def full_scan(scores, k):
    """Rows of the k largest positive scores, the lower row first among equals."""
    rows = np.lexsort((np.arange(len(scores)), -scores))[:k]
    return rows[scores[rows] > 0]


def sorted_ceilings(ceilings):
    order = np.argsort(-ceilings, kind="stable")
    return order, ceilings[order]


@settings(max_examples=300, deadline=None)
@given(
    n=st.integers(0, 5000), k=st.integers(0, 40), seed=st.integers(0, 10**6),
    steps=st.sampled_from([None, 3, 40]), looseness=st.sampled_from([1.0, 1.5, 30.0]),
    block=st.sampled_from([1, 64, 1024]),
)  # fmt: skip
def test_the_rows_found_are_those_of_a_full_scan(n, k, seed, steps, looseness, block):
    rng = np.random.default_rng(seed)
    scores = (rng.standard_normal(n) * rng.exponential(size=n)).astype(np.float32)
    if steps:  # ties
        scores = np.round(scores * steps) / np.float32(steps)
    ceilings = np.abs(scores) * np.where(rng.random(n) < 0.5, 1, looseness).astype(np.float32)
    order, descending = sorted_ceilings(ceilings)
    rows, found = largest(lambda part: scores[order[part]], order, descending, k, block)
    np.testing.assert_array_equal(rows, full_scan(scores, k))
    np.testing.assert_array_equal(found, scores[rows])
    negative, positive = both_largest(lambda part: scores[order[part]], order, descending, k, block)
    np.testing.assert_array_equal(positive[0], rows)
    np.testing.assert_array_equal(negative[0], full_scan(-scores, k))
    np.testing.assert_array_equal(negative[1], scores[negative[0]])


def test_ceilings_of_one_sign_find_the_largest():
    scores = np.linspace(-5, 1, 4000, dtype=np.float32)
    order, descending = sorted_ceilings(scores + np.float32(0.1))
    rows, _ = largest(lambda part: scores[order[part]], order, descending, 10, 1024)
    np.testing.assert_array_equal(rows, np.arange(3999, 3989, -1))


def test_few_rows_are_scored_when_ceilings_fall_fast():
    rng, scored = np.random.default_rng(0), []
    norms = np.sort(rng.exponential(size=100_000) ** 4)[::-1].astype(np.float32)
    scores = norms * rng.uniform(-1, 1, 100_000).astype(np.float32)

    def score(part):
        scored.append(part.stop - part.start)
        return scores[part]

    both_largest(score, np.arange(100_000), norms, 10, 256)
    assert sum(scored) < 3_000


def test_scores_that_are_nan_are_refused():
    order, ceilings = np.arange(3), np.full(3, 2.0, np.float32)
    with pytest.raises(ValueError, match="1 of 3 scores are NaN"):
        largest(lambda part: np.array([1, np.nan, 0], np.float32), order, ceilings, 2, 8)
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        top(np.array([np.nan, 1]), 1)


def test_top_takes_the_lower_of_equal_places_and_no_more_than_there_are():
    np.testing.assert_array_equal(top(np.array([1.0, 3, 2, 3, 3]), 2), [1, 3])
    np.testing.assert_array_equal(top(np.array([1.0, 3]), 5), [1, 0])
    assert len(top(np.empty(0), 3)) == len(top(np.ones(3), 0)) == 0


@pytest.mark.parametrize(("n", "columns"), [(0, 3), (1, 1), (95, 10), (96, 10), (500, 4)])
def test_products_in_tiles_are_products(n, columns):
    rng = np.random.default_rng(n)
    rows, right = rng.normal(size=(n, 70)), rng.normal(size=(70, columns))
    np.testing.assert_allclose(tall_product(rows, right), rows @ right, atol=1e-12)


def influence_on(features, labels, theta, l2, classes=3):
    """Influence at any weights: what is searched need not be at an optimum."""
    bank = bank_of(features, labels)
    bank.images.activations.__dict__["features"] = features  # keeps float16
    return HeadInfluence.fit(bank, RefittedHead(theta.reshape(classes, -1), l2, 0.0))


def assert_same_as_full_scan(influence, features, target, against, k):
    found = influence.strongest(features, target, against, k)
    everything = influence.on_margin(features, target, against)
    for rows, values, scores in (
        (found.helpful, -found.helpful_influence, -everything),
        (found.harmful, found.harmful_influence, everything),
    ):
        expected = full_scan(scores, k)
        # Scores that float32 cannot tell apart may trade places.
        near = 1e-5 * np.abs(everything).max()
        np.testing.assert_allclose(values, scores[expected], rtol=1e-4, atol=near)
        np.testing.assert_allclose(scores[rows], scores[expected], rtol=1e-4, atol=near)
        assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("seed", range(25))
def test_the_strongest_influences_are_those_of_a_full_scan(seed):
    """Heavy tails, large and tiny features, weak and strong penalties, both float widths."""
    rng = np.random.default_rng(seed)
    n, dim, classes = int(rng.integers(1, 3000)), int(rng.integers(1, 20)), int(rng.integers(2, 6))
    scale = 10.0 ** rng.uniform(-2, 2)
    features = scale * rng.standard_normal((n, dim)) * rng.exponential(size=(n, 1))
    features = features.astype(np.float16 if seed % 2 else np.float32)
    labels = rng.integers(0, classes, n)
    theta = rng.normal(size=(classes, dim + 1)) * rng.choice([0.1, 3]) / scale
    influence = influence_on(features, labels, theta, 10.0 ** rng.uniform(-6, -1), classes)
    target, against = rng.choice(classes, 2, replace=False)
    for k in (1, 6, n + 3):
        asked = scale * rng.standard_normal(dim)
        assert_same_as_full_scan(influence, asked, target, against, k)


def test_copies_of_an_image_come_in_the_order_of_their_rows():
    """Small whole numbers: float32 is exact, so that ties are."""
    features = np.tile(np.array([[1, 0], [0, 1], [2, 1]], np.float32), (40, 1))
    labels = np.tile([0, 1, 2], 40)
    influence = influence_on(features, labels, np.zeros((3, 3)), 0.5)
    found = influence.strongest(np.array([1, 0], np.float32), 0, 1, 50)
    for rows, values in (
        (found.helpful, found.helpful_influence),
        (found.harmful, found.harmful_influence),
    ):
        assert (np.lexsort((rows, -np.abs(values))) == np.arange(len(rows))).all()


def test_ceilings_hold_for_every_training_image():
    """Cauchy and Schwarz with float32's rounding: on real images, for every pair of them."""
    data = load_digits()
    features, labels = (data.data[:300] / 16).astype(np.float32), data.target[:300]
    head = refit_head(features, labels, 10, 1e-6)
    influence = HeadInfluence.fit(bank_of(features, labels), head)
    inverse = np.linalg.inv(hessian(extend(features), head.theta, head.l2))
    for row in range(0, 300, 7):
        against, target = head.logits(features[row : row + 1])[0].argsort()[-2:]
        assert_same_as_full_scan(influence, features[row], target, against, 10)
        unit = np.zeros((10, 65))
        unit[target], unit[against] = extend(features[[row]])[0], -extend(features[[row]])[0]
        reach = np.sqrt(unit.ravel() @ inverse @ unit.ravel()) / 300
        effects = np.abs(influence.on_margin(features[row], target, against))[influence.order]
        assert (effects <= influence.ceilings * reach * 1.001).all()


def test_an_image_with_features_that_are_not_finite_is_refused():
    influence = influence_on(np.eye(3, dtype=np.float32), np.arange(3), np.zeros((3, 4)), 0.1)
    for ask in (influence.strongest, influence.explain):
        with pytest.raises(ValueError, match="not all finite"):
            ask(np.array([0, np.nan, 1]), 0, 1, 2)


@pytest.fixture(scope="module")
def digits():
    """Features of three confusable digits, (400, 64), their labels and a head at its optimum."""
    data = load_digits()
    chosen = np.isin(data.target, (3, 8, 9))
    features = (data.data[chosen][:400] / 16).astype(np.float32)
    labels = np.searchsorted((3, 8, 9), data.target[chosen][:400])
    return features, labels, refit_head(features, labels, 3, L2)


def test_the_removal_effect_is_one_newton_step(digits):
    """Second route: the Hessian without the image, in full and in float64."""
    features, labels, head = digits
    influence = HeadInfluence.fit(bank_of(features, labels), head)
    rows, asked = np.array([5, 0, 399, 5]), features[17]
    got = influence.removal_effect(rows, asked, 1, 2)
    h = extend(features)
    whole = hessian(h, head.theta, 0)
    unit = np.zeros((3, 65))
    unit[1], unit[2] = extend(asked[None])[0], -extend(asked[None])[0]
    for row, effect in zip(rows, got, strict=True):
        own = hessian(h[[row]], head.theta, 0)
        remaining = whole - own / 400 + L2 * np.eye(195)
        gradient = np.outer(influence.residuals[row], h[row]).ravel() / 400
        exact = unit.ravel() @ np.linalg.solve(remaining, gradient)
        assert effect == pytest.approx(exact, rel=1e-3)
    assert influence.removal_effect(rows[:0], asked, 1, 2).shape == (0,)


def test_the_removal_effect_is_closer_to_refitting_than_the_influence():
    """A penalty so weak that single images bend the head: there the influence understates."""
    data = load_digits()
    features, labels = (data.data[:150] / 16).astype(np.float32), data.target[:150] // 5
    head = refit_head(features, labels, 2, 1e-3)
    influence = HeadInfluence.fit(bank_of(features, labels), head)
    asked = features[3]
    found = influence.strongest(asked, 0, 1, 15)
    rows = np.concatenate([found.helpful, found.harmful])

    def margin(theta):
        return (theta[0] - theta[1]) @ np.append(asked, 1)

    actual = []
    for row in rows:
        kept = np.delete(np.arange(150), row)
        refitted = refit_head(features[kept], labels[kept], 2, 1e-3 * 150 / 149, head.theta)
        actual.append(margin(refitted.theta) - margin(head.theta))
    actual = np.array(actual)

    def slope(predicted):
        return predicted @ actual / (predicted @ predicted)

    stepped = influence.removal_effect(rows, asked, 0, 1)
    first_order = np.concatenate([found.helpful_influence, found.harmful_influence])
    assert 0.9 < slope(stepped) < 1.1
    assert abs(slope(first_order) - 1) > 2 * abs(slope(stepped) - 1)
