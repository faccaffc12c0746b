import warnings

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.rank import (
    get_normalized_margin_for_each_label,
    get_self_confidence_for_each_label,
)
from scipy.optimize import approx_fprime
from scipy.special import log_softmax, softmax
from scipy.stats import dirichlet_multinomial
from sklearn.metrics import average_precision_score

from explain.cross_validation import fit_head, head_cross_validation, stratified_folds
from explain.head import extend, refit_head
from explain.label_issues import (
    area_under_margin,
    confident_mistakes,
    label_issues,
    neighbour_votes,
    normalised_margin,
    self_confidence,
)
from explain.label_noise import _CONCENTRATIONS, _most_even, estimate_mistakes, mistake_log_odds
from models.activations import Neighbours
from models.bank import normalise_rows
from tests.unit.test_bank import bank_of


def clusters(n, classes=4, dim=10, seed=0, spread=0.6):
    rng = np.random.default_rng(seed)
    middle = np.random.default_rng(99).normal(size=(classes, dim))
    labels = rng.integers(0, classes, n)
    return middle[labels] + spread * rng.normal(size=(n, dim)), labels


def mislabelled(labels, share, kind, seed=1):
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < share
    classes = labels.max() + 1
    step = 1 if kind == "pair" else rng.integers(1, classes, len(labels))
    return np.where(wrong, (labels + step) % classes, labels)


def own_neighbours(features):
    return bank_of(features).locate_own(np.arange(len(features))).neighbours


@pytest.fixture(scope="module", params=["symmetric", "pair"])
def noisy(request):
    """Features, given and true labels, probabilities and all scores."""
    features, true = clusters(1200)
    given = mislabelled(true, 0.12, request.param)
    probabilities = head_cross_validation(features, given, 4)
    return features, given, true, probabilities, label_issues(
        probabilities, given, own_neighbours(features)
    )  # fmt: skip


def test_probabilities_are_of_heads_refitted_without_the_fold():
    features, labels = clusters(300)
    found = head_cross_validation(features, labels, 4, folds=3, l2=1e-2, seed=5)
    fold_of = stratified_folds(labels, 3, 5)
    unit = normalise_rows(features)
    for fold in range(3):
        held = fold_of == fold
        head = refit_head(unit[~held], labels[~held], 4, 1e-2)
        np.testing.assert_allclose(found[held], softmax(head.logits(unit[held]), axis=1), atol=2e-3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_an_images_own_label_does_not_reach_its_probabilities():
    """Changed labels of one fold change nothing in that fold."""
    features, labels = clusters(200)
    fold_of = stratified_folds(labels, 5, 0)
    h = extend(normalise_rows(features)).astype(np.float32)
    others = fold_of != 2
    before = head_cross_validation(features, labels, 4)[~others]
    again = softmax(h[~others] @ fit_head(h[others], labels[others], 4, 1e-3).T, axis=1)
    np.testing.assert_allclose(before, again, atol=1e-6)


def test_the_fitted_head_has_no_gradient_left():
    features, labels = clusters(150, dim=4)
    h = extend(features).astype(np.float32)
    theta = fit_head(h, labels, 4, 1e-2)

    def loss(flat):
        log_p = log_softmax(np.float64(h) @ flat.reshape(4, -1).T, axis=1)
        return -log_p[np.arange(150), labels].mean() + 5e-3 * (flat**2).sum()

    assert np.abs(approx_fprime(theta.ravel().astype(np.float64), loss)).max() < 5e-4


def test_folds_are_even_in_every_class():
    labels = np.random.default_rng(0).integers(0, 7, 503)
    fold_of = stratified_folds(labels, 5, 0)
    for chosen in (np.ones(503, bool), *(labels == c for c in range(7))):
        sizes = np.bincount(fold_of[chosen], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_cross_validation_of_odd_sets():
    two = head_cross_validation(np.eye(2), np.array([0, 1]), 3, folds=2)
    assert (two.argmax(axis=1) == [1, 0]).all()  # each is known from the other only
    assert np.isfinite(head_cross_validation(np.zeros((6, 2)), np.zeros(6, int), 2)).all()
    with pytest.raises(ValueError, match="cannot be split"):
        head_cross_validation(np.ones((1, 2)), np.zeros(1, int), 2)
    with pytest.raises(ValueError, match="not finite"):
        head_cross_validation(np.full((9, 2), np.nan), np.zeros(9, int), 2)
    with pytest.raises(ValueError, match="must be"):
        head_cross_validation(np.ones((9, 2)), np.zeros(8, int), 2)


def test_scores_are_cleanlabs_turned_round(noisy):
    _, given, _, probabilities, found = noisy
    margin = get_normalized_margin_for_each_label(given, probabilities)
    np.testing.assert_allclose(found.margin, 1 - margin, atol=1e-6)
    confidence = get_self_confidence_for_each_label(given, probabilities)
    np.testing.assert_allclose(found.self_confidence, 1 - confidence, atol=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_confident_mistakes_are_cleanlabs(seed):
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 7))
    labels = rng.integers(0, classes - (seed % 3 == 0 and classes > 2), 200)
    logits = rng.normal(size=(200, classes)) + 1.5 * np.eye(classes)[labels]
    logits[:40] = np.round(logits[:40])  # ties
    probabilities = softmax(logits, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    np.testing.assert_array_equal(confident_mistakes(probabilities, labels), peer)


def test_area_under_margin_is_the_mean_over_epochs():
    logits = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float16)
    labels = np.array([0, 1, 2, 3, 0])
    by_hand = [
        np.mean([max(z[k] for k in range(4) if k != y) - z[y] for z in logits[:, i].astype(float)])
        for i, y in enumerate(labels)
    ]
    np.testing.assert_allclose(area_under_margin(logits, labels), by_hand, rtol=1e-5)


def test_votes_leave_the_image_itself_out():
    labels = np.array([0, 1, 1, 2])
    rows = np.array([[0, 1, 2], [1, 0, 3], [3, 1, 0], [3, 3, 3]])
    votes = neighbour_votes(Neighbours(rows, np.zeros((4, 3), np.float32)), labels, 3)
    third = 1 / 3
    np.testing.assert_allclose(
        votes, [[0, 1, 0], [0.5, 0, 0.5], [third] * 3, [third] * 3], atol=1e-6
    )


def test_mistakes_are_recovered_where_there_are_many():
    """Images of class k are taken for k + 1 three times as often as for the others together."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 200_000)
    wrong = rng.random(200_000) < 0.15
    step = np.where(rng.random(200_000) < 0.75, 1, rng.integers(2, 5, 200_000))
    given = np.where(wrong, (true + step) % 5, true)
    logits = 2 * rng.normal(size=(200_000, 5)) + 6 * np.eye(5)[true]
    mistakes = estimate_mistakes(softmax(logits, axis=1), given)
    np.testing.assert_allclose(mistakes.sum(axis=1), 1)
    np.testing.assert_allclose(np.diag(mistakes), 0)
    np.testing.assert_allclose(mistakes[range(5), [1, 2, 3, 4, 0]], 0.75, atol=0.03)


def test_mistakes_are_even_unless_the_labels_say_otherwise():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 20_000)
    given = mislabelled(true, 0.1, "symmetric")
    probabilities = softmax(2 * rng.normal(size=(20_000, 5)) + 6 * np.eye(5)[true], axis=1)
    even = (1 - np.eye(5)) / 4
    np.testing.assert_allclose(estimate_mistakes(probabilities, given), even, atol=0.05)
    np.testing.assert_allclose(estimate_mistakes(probabilities, true), even, atol=1e-3)


def test_the_concentration_maximises_scipys_likelihood():
    counts = np.random.default_rng(0).poisson([0, 1, 9, 3], (4, 4)) * (1 - np.eye(4, dtype=int))
    likelihood = np.array(
        [
            sum(
                dirichlet_multinomial.logpmf(np.delete(row, k), [c / 3] * 3, row.sum())
                for k, row in enumerate(counts)
            )
            for c in _CONCENTRATIONS
        ]
    )
    assert _most_even(counts) == _CONCENTRATIONS[likelihood >= likelihood.max() - 2][-1]


def test_log_odds_are_bayes_rule():
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(3), 50)
    mistakes = np.array([[0, 0.9, 0.1], [0.5, 0, 0.5], [0.2, 0.8, 0]])
    labels = rng.integers(0, 3, 50)
    rate = 0.07
    given = mistakes * rate + np.eye(3) * (1 - rate)
    joint = prior * given[:, labels].T
    right = joint[np.arange(50), labels] / joint.sum(axis=1)
    exact = np.log((1 - right) / right) - np.log(rate / (1 - rate))
    np.testing.assert_allclose(mistake_log_odds(prior, labels, mistakes), exact, rtol=1e-4)


def test_suspicion_finds_wrong_labels_at_least_as_well_as_cleanlabs_scores(noisy):
    _, given, true, _, found = noisy
    wrong = given != true
    precision = {
        name: average_precision_score(wrong, getattr(found, name))
        for name in ("suspicion", "margin", "self_confidence", "disagreement")
    }
    assert precision["suspicion"] > 0.9
    assert precision["suspicion"] > max(precision["margin"], precision["self_confidence"]) - 0.003


def test_ranks_suggestions_and_flags_hang_together(noisy):
    _, given, true, _, found = noisy
    assert (np.diff(found.suspicion[np.argsort(found.rank)]) <= 0).all()
    assert sorted(found.rank) == list(range(len(given)))
    assert (found.suggested[found.flagged] >= 0).all()
    assert not (found.suggested == given).any()
    wrong = found.flagged & (given != true)
    assert (found.suggested[wrong] == true[wrong]).mean() > 0.9
    assert wrong.sum() / found.flagged.sum() > 0.8 and found.area_under_margin is None


def test_equal_images_are_ranked_by_row():
    probabilities = np.full((6, 2), 0.5, np.float32)
    neighbours = Neighbours(np.zeros((6, 0), np.int64), np.zeros((6, 0), np.float32))
    found = label_issues(probabilities, np.array([0, 1, 0, 1, 0, 1]), neighbours)
    np.testing.assert_array_equal(found.rank, range(6))
    assert not found.flagged.any()


def test_one_image_and_what_is_refused():
    nobody = Neighbours(np.zeros((1, 0), np.int64), np.zeros((1, 0), np.float32))
    one = label_issues(np.array([[0.2, 0.8]]), np.array([0]), nobody)
    assert one.suggested[0] == 1 and one.rank[0] == 0
    with pytest.raises(ValueError, match="C at least 2"):
        label_issues(np.ones((1, 1)), np.array([0]), nobody)
    with pytest.raises(ValueError, match="differ in length"):
        label_issues(np.ones((2, 2)) / 2, np.array([0]), nobody)
    with pytest.raises(ValueError, match="have NaN"):
        label_issues(np.full((1, 2), np.nan), np.array([0]), nobody)


def test_scores_of_certain_labels():
    sure = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    np.testing.assert_array_equal(normalised_margin(sure, np.array([0, 0])), [0, 1])
    np.testing.assert_array_equal(self_confidence(sure, np.array([0, 0])), [0, 1])
