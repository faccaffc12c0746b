import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from ood.metrics import bootstrap, evaluate

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=60)


def first_reaching(reached: np.ndarray, other: np.ndarray, thresholds) -> float:
    """Share of `other` at or under the first of the thresholds at or under which 95% are."""
    for threshold in thresholds:
        if 100 * (reached <= threshold).sum() >= 95 * len(reached):
            return (other <= threshold).mean()
    raise AssertionError


@given(SCORES, SCORES)
def test_as_sklearn_and_by_counting_with_many_ties(known, ood):
    known, ood = np.array(known, float), np.array(ood, float)
    scores, is_ood = np.concatenate([known, ood]), np.arange(len(known) + len(ood)) >= len(known)
    found = evaluate(known, ood)
    assert found.auroc == pytest.approx(roc_auc_score(is_ood, scores))
    assert found.aupr_out == pytest.approx(average_precision_score(is_ood, scores))
    assert found.aupr_in == pytest.approx(average_precision_score(~is_ood, -scores))
    upwards = np.unique(scores)
    assert found.fpr95_id_positive == first_reaching(known, ood, upwards)
    assert found.fpr95_ood_positive == first_reaching(-ood, -known, -upwards[::-1])


@pytest.mark.parametrize("decimals", [8, 1])
def test_as_pytorch_ood(decimals):
    """Its FPR95TPR has OOD as the positive class; its AUPR are trapezoids, ours are steps."""
    from pytorch_ood.metrics import OODMetrics

    rng = np.random.default_rng(0)
    known, ood = rng.normal(size=700).round(decimals), rng.normal(1, size=300).round(decimals)
    scores, is_ood = np.concatenate([known, ood]), np.arange(1000) >= 700
    metrics = OODMetrics()
    metrics.update(torch.tensor(scores), torch.tensor(np.where(is_ood, -1, 0)))
    theirs, ours = metrics.compute(), evaluate(known, ood)
    assert ours.auroc == pytest.approx(theirs["AUROC"], abs=1e-6)
    assert ours.fpr95_ood_positive == pytest.approx(theirs["FPR95TPR"], abs=1e-6)
    for name, positive in (("AUPR-OUT", is_ood), ("AUPR-IN", ~is_ood)):
        precision, recall, _ = precision_recall_curve(
            positive, scores if name == "AUPR-OUT" else -scores
        )
        assert auc(recall, precision) == pytest.approx(theirs[name], abs=1e-6)
    assert ours.aupr_out == pytest.approx(theirs["AUPR-OUT"], abs=0.02)
    assert ours.aupr_in == pytest.approx(theirs["AUPR-IN"], abs=0.02)


def test_the_two_conventions_differ_and_are_what_they_say():
    known, ood = np.arange(100.0), np.array([10.0] * 50 + [95.0] * 44 + [200.0] * 6)
    found = evaluate(known, ood)
    assert found.fpr95_id_positive == 0.50  # threshold 94 accepts 95 known; 50 of 100 OOD
    assert found.fpr95_ood_positive == 0.90  # threshold 10 flags all 100 OOD; known 10 to 99


def test_perfect_useless_and_reversed():
    perfect = evaluate(np.zeros(20), np.ones(20))
    assert (perfect.auroc, perfect.aupr_in, perfect.aupr_out) == (1, 1, 1)
    assert (perfect.fpr95_id_positive, perfect.fpr95_ood_positive) == (0, 0)
    useless = evaluate(np.zeros(20), np.zeros(60))
    assert (useless.auroc, useless.aupr_in, useless.aupr_out) == (0.5, 0.25, 0.75)
    assert (useless.fpr95_id_positive, useless.fpr95_ood_positive) == (1, 1)
    assert evaluate(np.ones(20), np.zeros(20)).auroc == 0
    assert evaluate(np.array([-np.inf]), np.array([np.inf])).auroc == 1


@pytest.mark.parametrize(("known", "ood"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_bad_scores_are_refused(known, ood):
    for measure in (evaluate, bootstrap):
        with pytest.raises(ValueError, match="both and no NaN"):
            measure(np.array(known), np.array(ood))


def test_the_bootstrap_is_that_of_resampled_scores():
    rng = np.random.default_rng(1)
    known, ood = rng.normal(size=60).round(1), rng.normal(1, size=40).round(1)
    again = np.random.default_rng(3)
    found = [
        evaluate(known[again.integers(60, size=60)], ood[again.integers(40, size=40)]).auroc
        for _ in range(50)
    ]
    low, high = bootstrap(known, ood, draws=50, seed=3, confidence=0.9)
    assert (low.auroc, high.auroc) == pytest.approx(tuple(np.quantile(found, [0.05, 0.95])))


def test_bootstrap_intervals_cover_the_true_auroc():
    rng = np.random.default_rng(2)
    truth, covered = norm.cdf(1 / np.sqrt(2)), 0
    for trial in range(200):
        low, high = bootstrap(rng.normal(size=150), rng.normal(1, size=150), seed=trial)
        assert low.auroc <= high.auroc
        covered += low.auroc <= truth <= high.auroc
    assert 0.89 <= covered / 200 <= 0.99


def test_the_bootstrap_is_fast():
    rng = np.random.default_rng(4)
    start = time.process_time()
    bootstrap(rng.normal(size=5_000), rng.normal(1, size=5_000))
    assert time.process_time() - start < 1
