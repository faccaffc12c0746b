from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom, norm

from ood.monitoring.mixtures import BetaMixture, Start, StartMixture
from ood.monitoring.payoffs import Answer, AnsweredItems, Claim, Risk, largest_bets, payoffs
from ood.monitoring.thresholds import State, closure
from ood.monitoring.thresholds import TestedThresholds as Evidence

ERROR, LIMIT, STREAMS = 0.1, 0.1, 2_000
MOST = binom.ppf(0.999, STREAMS, ERROR)


def reached(process, steps):
    """Whether each of the streams' wealth ever is 1 / error; steps give payoffs, largest bets."""
    ever = np.zeros(process.log_wealth.shape, bool)
    for paid, largest in steps:
        process.update(paid, largest)
        ever |= process.log_wealth >= np.log(1 / ERROR)
    return ever


def null_losses(kind, rng, size):
    """(size, STREAMS, 1): the mean given the past is at most the limit, and often is."""
    shape = (size, STREAMS, 1)
    if kind == "at the limit":
        return (rng.uniform(size=shape) < LIMIT).astype(float)
    if kind == "dips":
        rate = np.where(np.arange(size) % 200 < 120, LIMIT, 0.02)
        return (rng.uniform(size=shape) < rate[:, None, None]).astype(float)
    return rng.beta(0.5, 4.5, shape)


@pytest.mark.parametrize("kind", ["at the limit", "dips", "continuous"])
@pytest.mark.parametrize("start", Start)
def test_false_alarms_are_as_rare_as_promised(kind, start):
    losses = null_losses(kind, np.random.default_rng(0), 800)
    steps = ((loss - LIMIT, 1 / LIMIT) for loss in losses)
    assert reached(StartMixture((STREAMS, 1), start), steps).sum() <= MOST


def test_false_alarms_of_the_closed_form_are_as_rare_as_promised():
    losses = null_losses("at the limit", np.random.default_rng(0), 300)
    steps = ((loss - LIMIT, 1 / LIMIT) for loss in losses)
    assert 0.01 * STREAMS < reached(BetaMixture((STREAMS, 1), LIMIT), steps).sum() <= MOST


def audited(rng, risk, claim, thresholds, wealth, size):
    """Payoffs and largest bets of streams whose deployed threshold follows the evidence.

    Normal scores of items of the kind that matters; it deploys the threshold with most wealth,
    which invites trouble, and audits more where there is more.
    """
    for _ in range(size):
        last = wealth()
        deployed = thresholds[last.argmax(axis=-1)]
        audit = np.where(last.max(axis=-1) > 1, 0.3, 0.1)
        scores = rng.normal(size=STREAMS)
        chance = np.where(scores > deployed, 1, audit)
        weights = (rng.uniform(size=STREAMS) < chance) / chance
        own = np.full(STREAMS, risk is Risk.MISS)
        paid = payoffs(risk, thresholds, scores, own, weights, LIMIT)
        largest = largest_bets(claim, risk, thresholds, deployed, audit, LIMIT)
        yield (paid if claim is Claim.VIOLATION else -paid), largest


@pytest.mark.parametrize("risk", Risk)
@pytest.mark.parametrize("claim", Claim)
@pytest.mark.parametrize("start", [Start.FIRST, Start.HEAVY])
def test_no_threshold_is_called_what_it_is_not_with_audits_and_moving_thresholds(
    risk, claim, start
):
    """Five thresholds for which the claim is false, the boundary one exactly; two for others."""
    rate = LIMIT if risk is Risk.MISS else 1 - LIMIT
    rising = (claim is Claim.VIOLATION) == (risk is Risk.MISS)
    offsets = np.array([-0.8, -0.6, -0.4, -0.2, 0, 0.2, 0.4])
    thresholds = norm.ppf(rate) + (offsets if rising else -offsets[::-1])
    wrong = slice(0, 5) if rising else slice(2, 7)
    process = StartMixture((STREAMS, 7), start)
    steps = audited(np.random.default_rng(1), risk, claim, thresholds, lambda: process.wealth, 400)
    claimed = closure(reached(process, steps), risk, claim)[:, wrong].any(axis=1)
    assert claimed.sum() <= MOST


def test_without_weights_or_with_larger_bets_the_promise_fails():
    """The controls: audited answers taken as they are; wealth that may become negative."""
    rng = np.random.default_rng(2)
    thresholds = norm.ppf([1 - LIMIT])
    process, found = StartMixture((STREAMS, 1), Start.FIRST), []
    for _ in range(400):
        scores = rng.normal(size=STREAMS)
        chance = np.where(scores > thresholds, 1, 0.1)
        asked = rng.uniform(size=STREAMS) < chance
        known = np.zeros(STREAMS, bool)
        found.append((payoffs(Risk.FALSE_ALARM, thresholds, scores, known, asked, LIMIT), 10.0))
    assert reached(process, found).mean() > 0.9
    paid = payoffs(
        Risk.FALSE_ALARM, thresholds, np.zeros(1), np.zeros(1, bool), np.array([10]), 0.1
    )
    assert (1 + 10 * paid < 0).all()
    own = largest_bets(Claim.VIOLATION, Risk.FALSE_ALARM, thresholds, thresholds[0], 0.1, LIMIT)
    assert (1 + own * paid > -1e-12).all()


# --- whole monitors


def phases(rng, shifts, size, audit, risk):
    """Items of the kind that matters, at a score that shifts, deployed thresholds that move."""
    scores = rng.normal(size=size * len(shifts)) + np.repeat(shifts, size)
    deployed = np.cumsum(rng.normal(size=len(scores)) * 0.1)
    asked = (scores > deployed) | (rng.uniform(size=len(scores)) < audit)
    own = Answer.UNKNOWN if risk is Risk.MISS else Answer.KNOWN
    answers = np.where(asked, own, Answer.NOT_ASKED)
    return AnsweredItems(scores, answers, deployed, np.full(len(scores), audit))


def test_whole_monitors_with_restarts_rarely_claim_what_is_false():
    """60 streams that get worse and better: any claim against what holds since the run's start."""
    shifts, size, streams = np.array([1.5, 0.0, 1.5]), 500, 60
    grid = np.sort(np.concatenate([norm.ppf(0.1) + shifts[:2], np.linspace(-3, 3, 23)]))
    risks = norm.cdf(grid - shifts[:, None])
    wrong = np.zeros(2, int)
    for seed in range(streams):
        items = phases(np.random.default_rng(seed), shifts, size, 0.5, Risk.MISS)
        test, errors = Evidence(Risk.MISS, grid, 0.1, ERROR), np.zeros(2, bool)
        begun, runs = np.zeros((2, 25), int), test.runs.copy()
        for low, high in pairwise(range(0, 1_501, 50)):
            before = test.states.copy()
            test.update(items[low:high])
            first, last = begun // size, (high - 1) // size
            ever = [[risks[first[c, k] : last + 1, k] for k in range(25)] for c in range(2)]
            safe = np.array([(r <= 0.1 + 1e-12).all() for r in ever[0]])
            unsafe = np.array([(r >= 0.1 - 1e-12).all() for r in ever[1]])
            changed = test.states != before
            errors[0] |= (safe & changed & (test.states == State.VIOLATED)).any()
            errors[1] |= (unsafe & changed & (test.states == State.CERTIFIED)).any()
            restarted = test.runs > runs
            begun[restarted], runs = high, test.runs.copy()
        wrong += errors
    assert (wrong <= binom.ppf(0.999, streams, ERROR)).all()
    assert test.runs.max() > 1


def test_a_change_is_found_as_soon_as_promised_without_a_window():
    """Risk .05, from item 1,500 on .2; limit and error .1: a median of at most 200 items."""
    rng = np.random.default_rng(3)
    process, at = StartMixture((600, 1), Start.HEAVY), np.full(600, np.inf)
    for item in range(2_100):
        loss = rng.uniform(size=(600, 1)) < (0.05 if item < 1_500 else 0.2)
        process.update(loss - LIMIT, 1 / LIMIT)
        at[(process.wealth[:, 0] >= 10) & (at == np.inf)] = item + 1
    assert (at <= 1_500).mean() <= 0.01
    assert np.median(at[at > 1_500]) - 1_500 <= 205  # 195 over 4,000 streams
