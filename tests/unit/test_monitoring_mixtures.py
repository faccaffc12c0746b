from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from ood.monitoring.mixtures import FRACTIONS, BetaMixture, Start, StartMixture, start_posterior
from ood.monitoring.payoffs import Answer, AnsweredItems, Claim, Risk, largest_bets, payoffs

LIMIT = 0.1


def run(process, losses, limit=LIMIT):
    for loss in losses:
        process.update(loss - limit, 1 / limit)
    return process


def losses_of(rng, size, shape=(1,), rate=0.2):
    return (rng.uniform(size=(size, *shape)) < rate).astype(float)


def brute_force(start, losses, limit=LIMIT):
    """Every start by itself: the product of its factors times what is put on it, and the cash."""
    cash = start.cash(np.arange(len(losses) + 1.0))
    total = cash[-1]
    for begin in range(len(losses)):
        factors = 1 + np.multiply.outer(losses[begin:] - limit, FRACTIONS / limit)
        total += (cash[begin] - cash[begin + 1]) * np.prod(factors, axis=0).mean()
    return total


# --- mixtures


@pytest.mark.parametrize("start", Start)
def test_wealth_is_the_sum_over_all_starts(start):
    losses = losses_of(np.random.default_rng(0), 150)
    process = run(StartMixture((1,), start), losses)
    assert process.wealth[0] == pytest.approx(brute_force(start, losses[:, 0]), rel=1e-10)
    assert process.log_wealth[0] == np.log(process.wealth[0])


@pytest.mark.parametrize("start", Start)
def test_cash_is_spent_once(start):
    cash = start.cash(np.arange(100_001.0))
    assert cash[0] == 1 and (np.diff(cash) <= 0).all() and cash[-1] >= 0
    untouched = StartMixture((3,), start)
    for _ in range(50):
        untouched.update(np.full(3, 1e-300), 1.0)
    np.testing.assert_allclose(untouched.wealth, 1, rtol=1e-12)


def test_heavy_tailed_starts_are_as_promised():
    clock = np.array([1e3, 1e5, 1e7])
    mass = Start.HEAVY.cash(clock) - Start.HEAVY.cash(clock + 1)
    promised = np.log(100) / ((clock + 100) * np.log(clock + 100) ** 2)
    np.testing.assert_allclose(mass, promised, rtol=1e-3)


@pytest.mark.parametrize("start", Start)
def test_the_wealth_is_fair(start):
    """The mean over the next item is the wealth now, at the limit; below it is less."""
    process = run(StartMixture((1,), start), losses_of(np.random.default_rng(1), 40))
    now = process.wealth[0]
    after = [
        run(StartMixture.restore(process.state()), [np.array([loss])]).wealth[0]
        for loss in (0.0, 1.0)
    ]
    assert 0.9 * after[0] + 0.1 * after[1] == pytest.approx(now, rel=1e-12)
    assert 0.95 * after[0] + 0.05 * after[1] < now


def test_streams_know_nothing_of_each_other_and_items_that_do_not_matter_change_nothing():
    rng = np.random.default_rng(2)
    losses, mattering = losses_of(rng, 200, (5, 3)), rng.uniform(size=(200, 5)) < 0.4
    together = StartMixture((5, 3), Start.HEAVY)
    for loss, matter in zip(losses, mattering, strict=True):
        together.update((loss - LIMIT) * matter[:, None], 10.0)
    for stream in range(5):
        alone = run(StartMixture((3,), Start.HEAVY), losses[mattering[:, stream], stream])
        np.testing.assert_array_equal(alone.wealth, together.wealth[stream])
        np.testing.assert_array_equal(alone.clock, together.clock[stream])


def test_a_restart_leaves_the_cash_of_a_clock():
    losses = losses_of(np.random.default_rng(3), 90, (4,))
    process = run(StartMixture((4,), Start.HEAVY), losses[:60])
    before = process.wealth.copy()
    process.restart(np.array([True, False, True, False]), 60)
    cash = Start.HEAVY.cash(np.array(60.0))
    np.testing.assert_array_equal(process.wealth, [cash, before[1], cash, before[3]])
    assert (process.wealth <= before).all()
    process.restart(np.array([True, False, False, False]), 0)
    run(process, losses[60:])
    assert process.wealth[0] == run(StartMixture((4,), Start.HEAVY), losses[60:]).wealth[0]
    untouched = run(StartMixture((4,), Start.HEAVY), losses)
    assert process.wealth[1] == untouched.wealth[1] and process.wealth[2] < untouched.wealth[2]


@pytest.mark.parametrize("start", Start)
def test_nothing_overflows(start):
    process = run(StartMixture((2,), start), np.tile([1.0, 0.0], (5_000, 1)))
    assert np.isfinite(process.wealth).all() and process.wealth[0] > 1e200
    run(process, np.zeros((20_000, 2)))
    assert np.isfinite(process.wealth).all()
    assert (process.log_wealth[1] < -30) == (start is not Start.HEAVY)


@pytest.mark.parametrize(
    "process", [StartMixture((4, 3), s) for s in Start] + [BetaMixture((3,), LIMIT)]
)
def test_a_stored_process_goes_on_bit_for_bit(process):
    losses = losses_of(np.random.default_rng(4), 80, process.log_wealth.shape)
    kind = type(process)
    run(process, losses[:50])
    again = run(kind.restore(process.state()), losses[50:])
    run(process, losses[50:])
    for name, array in process.state().items():
        np.testing.assert_array_equal(array, again.state()[name])
    np.testing.assert_array_equal(process.log_wealth, again.log_wealth)


# --- the closed form


@pytest.mark.parametrize(("k", "n"), [(0, 0), (1, 1), (0, 60), (9, 30), (4, 200)])
@pytest.mark.parametrize("limit", [0.1, 0.5, 0.9])
def test_closed_form_is_the_integral_over_bets(k, n, limit):
    process = BetaMixture((1,), limit)
    run(process, np.ones((k, 1)), limit)
    run(process, np.zeros((n - k, 1)), limit)

    def at(q):
        return beta.pdf(q, 0.5, 0.5) * (q / limit) ** k * ((1 - q) / (1 - limit)) ** (n - k)

    middle = (limit + 1) / 2
    # The density has a pole at 1: integrate over arcs.
    arc = [np.arcsin(np.sqrt(x)) for x in (limit, middle, 1)]
    total = sum(
        quad(lambda a: at(np.sin(a) ** 2) * 2 * np.sin(a) * np.cos(a), low, high, epsabs=0)[0]
        for low, high in pairwise(arc)
    )
    expected = np.log(total / beta.sf(limit, 0.5, 0.5))
    assert process.log_wealth[0] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_closed_form_is_fair_and_near_the_grid():
    losses = losses_of(np.random.default_rng(5), 300)
    process = run(BetaMixture((1,), LIMIT), losses)
    now = np.exp(process.log_wealth[0])
    after = [
        np.exp(run(BetaMixture.restore(process.state()), [np.array([x])]).log_wealth[0])
        for x in (0.0, 1.0)
    ]
    assert 0.9 * after[0] + 0.1 * after[1] == pytest.approx(now, rel=1e-9)
    grid = run(StartMixture((1,), Start.FIRST), losses)
    assert abs(grid.log_wealth[0] - process.log_wealth[0]) < 2


def test_closed_form_ignores_what_does_not_matter_and_refuses_what_it_is_not_for():
    process = BetaMixture((2,), LIMIT)
    process.update(np.zeros(2), 10.0)
    assert process.log_wealth.tolist() == [0, 0]
    with pytest.raises(ValueError, match="labelled for sure"):
        process.update(np.array([9.0, -0.1]), 10.0)
    with pytest.raises(ValueError, match="only 1 is allowed"):
        process.update(np.array([0.9, -0.1]), 1.0)


# --- dates


def test_the_start_posterior_is_the_shares_of_all_starts():
    losses = losses_of(np.random.default_rng(6), 120, (2,))
    process = run(StartMixture((2,), Start.HEAVY), losses)
    shares = start_posterior(
        Start.HEAVY, process.clock, losses - LIMIT, np.full(losses.shape, 1 / LIMIT)
    )
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    cash = Start.HEAVY.cash(np.arange(121.0))
    for begin in (0, 40, 119):
        for column in range(2):
            factors = 1 + np.multiply.outer(losses[begin:, column] - LIMIT, FRACTIONS / LIMIT)
            own = (cash[begin] - cash[begin + 1]) * np.prod(factors, axis=0).mean()
            held = process.wealth[column] - cash[-1]
            assert shares[begin, column] == pytest.approx(own / held, rel=1e-9)
    last = start_posterior(
        Start.HEAVY, process.clock, losses[-30:] - LIMIT, np.full((30, 2), 1 / LIMIT)
    )
    np.testing.assert_allclose(last, shares[-30:] / shares[-30:].sum(axis=0), rtol=1e-9)


# --- payoffs and the largest bets


@pytest.mark.parametrize("risk", Risk)
def test_payoffs_have_mean_zero_at_the_limit_whatever_the_audits(risk):
    """Exactly, by summing over all items of a small world and over the coin."""
    scores, thresholds = np.arange(20.0), np.array([3.0, 9.0, 15.0])
    unknown = np.arange(20) % 3 == 0
    own = unknown if risk is Risk.MISS else ~unknown
    for deployed in (-1.0, 5.0, 12.0, 30.0):
        chance = np.where(scores > deployed, 1, 0.1)
        flags = scores[:, None] > thresholds
        rates = (flags if risk is Risk.FALSE_ALARM else ~flags)[own].mean(axis=0)
        for limit, column in zip(rates, range(3), strict=True):
            paid = payoffs(risk, thresholds, scores, unknown, 1 / chance, limit)
            assert (chance[:, None] * paid).sum(axis=0)[column] == pytest.approx(0, abs=1e-12)
            assert (paid[~own] == 0).all() and (paid[own] != 0).all()


@pytest.mark.parametrize("risk", Risk)
@pytest.mark.parametrize("claim", Claim)
def test_the_largest_bet_loses_all_at_worst_and_no_less(risk, claim):
    """Over every item that could come: the smallest factor is exactly 0."""
    thresholds, scores = np.array([1.0, 2.0, 3.0, 4.0]), np.linspace(0.5, 4.5, 9)
    for deployed in (0.0, 1.0, 2.5, 3.0, 9.0):
        for audit in (0.05, 1.0):
            chance = np.where(scores > deployed, 1, audit)
            own = np.full(9, risk is Risk.MISS)
            paid = payoffs(risk, thresholds, scores, own, 1 / chance, 0.2)
            paid = paid if claim is Claim.VIOLATION else -paid
            largest = largest_bets(claim, risk, thresholds, deployed, audit, 0.2)
            factors = 1 + largest * paid
            assert (factors > -1e-12).all()
            reachable = np.ones(4, bool)
            if audit < 1 and (claim is Claim.VIOLATION) != (risk is Risk.MISS):
                # Items at or below the candidate may all be flagged ones.
                reachable = scores.min() <= min(deployed, 9) * np.ones(4)
            np.testing.assert_allclose(factors.min(axis=0)[reachable], 0, atol=1e-12)


def test_weights_are_one_over_the_chance_of_being_asked():
    answers = np.array([Answer.UNKNOWN, Answer.KNOWN, Answer.NOT_ASKED, Answer.DO_NOT_KNOW])
    items = AnsweredItems(np.array([2.0, 1.0, 0, 0]), answers, np.ones(4), np.full(4, 0.25))
    assert items.weights.tolist() == [1, 4, 0, 4]
    assert len(items[1:3]) == 2 and items[1:3].weights.tolist() == [4, 0]


def test_thresholds_may_differ_in_what_may_be_bet_over_items_too():
    largest = largest_bets(
        Claim.VIOLATION, Risk.MISS, np.array([1.0, 2.0]), np.array([1.5, 0.0]), 0.1, 0.1
    )
    np.testing.assert_allclose(largest, [[1, 10], [10, 10]])
