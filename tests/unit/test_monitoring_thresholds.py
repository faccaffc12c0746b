from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import load, save

from ood.monitoring.mixtures import Start, StartMixture
from ood.monitoring.payoffs import Answer, AnsweredItems, Claim, Risk, largest_bets, payoffs
from ood.monitoring.thresholds import State, closure
from ood.monitoring.thresholds import TestedThresholds as Evidence

GRID = np.linspace(-1, 3, 21)


def stream(rng, size, audit=0.3, doubt=0.05, shift=2.0):
    """Known items at 0, unknown ones at 2, then nearer, then far; the deployed one moves."""
    unknown = rng.uniform(size=size) < 0.5
    third = np.arange(size) * 3 // size
    scores = rng.normal(size=size) + unknown * np.array([shift, shift / 4, 2 * shift])[third]
    deployed = 1 + np.sin(np.arange(size) / 50)
    asked = (scores > deployed) | (rng.uniform(size=size) < audit)
    answers = np.where(unknown, Answer.UNKNOWN, Answer.KNOWN)
    answers = np.where(rng.uniform(size=size) < doubt, Answer.DO_NOT_KNOW, answers)
    answers = np.where(asked, answers, Answer.NOT_ASKED)
    return AnsweredItems(scores, answers, deployed, np.full(size, audit))


def under_test(risk=Risk.MISS, items=None, grid=GRID, limit=0.1, error=0.1):
    test = Evidence(risk, grid, limit, error)
    if items is not None:
        test.update(items)
    return test


def assert_same(left, right):
    one, other = left.state(), right.state()
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


# --- closure


@pytest.mark.parametrize("risk", Risk)
@pytest.mark.parametrize("claim", Claim)
def test_closure_by_brute_force(risk, claim):
    """All 2^6 cases: a claim stands where it would for every riskier (safer) threshold."""
    reached = (np.arange(64)[:, None] >> np.arange(6)) % 2 == 1
    found = closure(reached, risk, claim)
    # From these thresholds the claim is harder to make, if it is true at the candidate.
    rising = (claim is Claim.VIOLATION) == (risk is Risk.MISS)
    for row, allowed in zip(reached, found, strict=True):
        for k in range(6):
            implied = row[k:] if rising else row[: k + 1]
            assert allowed[k] == implied.all()


# --- one stream, step by step


def by_hand(risk, items, limit=0.1, error=0.1):
    """The states after each item; every process a list of its own, in plain loops."""
    k = len(GRID)
    state, run = np.zeros(k, int), np.ones((2, k), int)
    reached, history = np.zeros((2, k), bool), []
    processes = [[StartMixture((1,), Start.HEAVY) for _ in range(k)] for _ in Claim]
    rising = (risk is Risk.MISS, risk is not Risk.MISS)
    banned, strikes = np.zeros((2, k), int)
    test = under_test(risk)  # only for when a violation is thought to have begun

    def restart(claim, where):
        clocks = {}
        for i in np.flatnonzero(where):
            there = [j for j in range(k) if not where[j] and run[claim, j] == run[claim, i] + 1]
            clocks[i] = processes[claim][there[0]].clock[0] if there else 0.0
        for i, clock in clocks.items():
            run[claim, i] += 1
            processes[claim][i].restart(np.array([True]), clock)
            reached[claim, i] = False

    for i in range(len(items)):
        answer, score = items.answers[i], items.scores[i]
        own = Answer.UNKNOWN if risk is Risk.MISS else Answer.KNOWN
        if answer in (own, Answer.DO_NOT_KNOW):
            for c, claim in enumerate(Claim):
                args = (claim, risk, GRID, items.deployed[i], items.audit[i], limit)
                largest = largest_bets(*args)
                for j, threshold in enumerate(GRID):
                    mistake = score <= threshold if risk is Risk.MISS else score > threshold
                    weight = 1 if score > items.deployed[i] else 1 / items.audit[i]
                    paid = weight * (mistake - limit) * (1 if claim is Claim.VIOLATION else -1)
                    paid = min(paid, 0) if answer == Answer.DO_NOT_KNOW else paid
                    processes[c][j].update(np.array([paid]), largest[j])
                    need = (np.pi * run[c, j]) ** 2 / (6 * error)
                    reached[c, j] |= processes[c][j].wealth[0] >= need
            banned[state == State.VIOLATED] -= 1
            safer_first = range(k) if risk is Risk.MISS else reversed(range(k))
            due = np.zeros(k, bool)
            for j in safer_first:
                if state[j] == State.VIOLATED:
                    if banned[j] > 0:
                        break
                    due[j] = True
            state[due] = State.UNPROVEN
            restart(0, due)
            proven = [
                np.array([(reached[c, j:] if rising[c] else reached[c, : j + 1]).all()
                          for j in range(k)])
                for c in range(2)
            ]  # fmt: skip
            violated = proven[0] & (state != State.VIOLATED)
            state[violated] = State.VIOLATED
            runs_left = {run[1, j] for j in np.flatnonzero(violated)}
            restart(1, np.array([state[j] == State.VIOLATED and run[1, j] in runs_left
                                 for j in range(k)]))  # fmt: skip
            test.update(items[test.items : i + 1])
            mattered = np.isin(items.answers[: i + 1], (own, Answer.DO_NOT_KNOW))
            for j in np.flatnonzero(violated):
                banned[j] = max(100, mattered[test.changed_at[j] :].sum()) * 2 ** strikes[j]
                strikes[j] += 1
            certified = np.array([(reached[1, j:] if rising[1] else reached[1, : j + 1]).all()
                                  for j in range(k)]) & (state != State.CERTIFIED)  # fmt: skip
            state[certified] = State.CERTIFIED
            strikes[certified] = 0
            restart(0, certified & reached[0])
        history.append(state.copy())
    return np.array(history)


@pytest.mark.parametrize("risk", Risk)
def test_states_are_those_of_plain_loops(risk):
    items = stream(np.random.default_rng(0), 1_500, audit=1.0, doubt=0.0, shift=3.0)
    history = by_hand(risk, items)
    test = under_test(risk)
    violated_at, certified_at = np.zeros(len(GRID), int), np.zeros(len(GRID), int)
    before = np.zeros(len(GRID), int)
    for i, states in enumerate(history):
        test.update(items[i : i + 1])
        np.testing.assert_array_equal(test.states, states)
        violated_at[(states != before) & (states == State.VIOLATED)] = i + 1
        certified_at[(states != before) & (states == State.CERTIFIED)] = i + 1
        before = states
    np.testing.assert_array_equal(test.violated_at, violated_at)
    np.testing.assert_array_equal(test.certified_at, certified_at)
    if risk is Risk.MISS:  # certified, violated and certified again, some of them
        again = (test.runs[1] > 1) & (test.states == State.CERTIFIED)
        assert again.any() and (test.runs[0][again] > 1).all()


@pytest.mark.parametrize("risk", Risk)
def test_the_wealth_is_that_of_plain_loops_with_audits_and_doubt(risk):
    """Products over every start and bet; a short stream, without any restart."""
    items = stream(np.random.default_rng(1), 300)
    found = under_test(risk, items, error=1e-250)
    own = Answer.UNKNOWN if risk is Risk.MISS else Answer.KNOWN
    rows = np.flatnonzero(np.isin(items.answers, (own, Answer.DO_NOT_KNOW)))
    doubt = items.answers[rows, None] == Answer.DO_NOT_KNOW
    assert doubt.any()
    for c, claim in enumerate(Claim):
        process = StartMixture(GRID.shape, Start.HEAVY)
        mine = np.full(len(rows), risk is Risk.MISS)
        paid = payoffs(risk, GRID, items.scores[rows], mine, items.weights[rows], 0.1)
        paid = -paid if claim is Claim.CERTIFICATE else paid
        paid = np.where(doubt, np.minimum(paid, 0), paid)
        largest = largest_bets(claim, risk, GRID, items.deployed[rows], items.audit[rows], 0.1)
        for gain, most in zip(paid, largest, strict=True):
            process.update(gain, most)
        np.testing.assert_allclose(found.process.wealth[c], process.wealth, rtol=1e-12)


@pytest.mark.parametrize("risk", Risk)
@pytest.mark.parametrize("audit", [0.2, 1.0])
def test_states_are_monotone_in_the_threshold(risk, audit):
    """Certified ones on the safe side, violated ones on the other."""
    items, test = stream(np.random.default_rng(2), 3_000, audit), under_test(risk)
    danger = np.array([1, 0, 2])  # unproven between certified and violated
    for low, high in pairwise(range(0, 3_001, 20)):
        test.update(items[low:high])
        steps = np.diff(danger[test.states])
        assert (steps >= 0).all() if risk is Risk.MISS else (steps <= 0).all()


@pytest.mark.parametrize("risk", Risk)
def test_with_label_errors_limits_are_moved_apart(risk):
    items = stream(np.random.default_rng(7), 400)
    noisy = Evidence(risk, GRID, 0.1, 1e-250, label_error=0.03)
    noisy.update(items)
    for row, limit in enumerate((0.13, 0.07)):
        exact = under_test(risk, items, limit=limit, error=1e-250)
        np.testing.assert_allclose(noisy.process.wealth[row], exact.process.wealth[row], rtol=1e-9)
    again = Evidence.restore(noisy.state())
    again.update(items)
    noisy.update(items)
    assert_same(again, noisy)


def test_label_errors_move_the_risk_by_no_more():
    """Every share of wrong labels up to eta, of missed and of found items, on a grid."""
    eta, risk = 0.05, np.linspace(0, 1, 21)
    shares = np.linspace(0, 1, 11)
    out_missed, out_found, wrong, wrong_missed = np.meshgrid(
        shares, shares, shares * eta / (1 - eta), shares, indexing="ij"
    )
    for r in risk:
        lost = r * out_missed + (1 - r) * out_found
        scale = np.minimum(1, eta / np.maximum(lost, 1e-12))
        missed, found = r * (1 - out_missed * scale), (1 - r) * (1 - out_found * scale)
        called = missed + found
        among = (missed + wrong * called * wrong_missed) / (called + wrong * called)
        assert among.max() <= r + eta + 1e-12 and among.min() >= r - eta - 1e-12


# --- blocks, storing, dates


@pytest.mark.parametrize("risk", Risk)
@pytest.mark.parametrize("blocks", [2, 40, 3_000])
def test_blocks_of_any_size_and_storing_in_between_give_the_same_numbers(risk, blocks):
    rng = np.random.default_rng(3)
    items = stream(rng, 3_000, shift=3.0)
    whole, parts = under_test(risk, items), under_test(risk)
    cuts = np.sort(rng.integers(0, 3_000, blocks - 1)) if blocks < 3_000 else np.arange(1, 3_000)
    for i, (low, high) in enumerate(pairwise([0, *cuts, 3_000])):
        parts.update(items[low:high])
        if i % 7 == 0 and blocks < 3_000:
            parts = Evidence.restore(load(save(parts.state())))
    assert_same(whole, parts)
    assert (whole.violated_at > 0).any() and (whole.certified_at > 0).any()
    assert whole.runs.max() > 1 and whole.items == 3_000
    np.testing.assert_array_equal(whole.process.wealth, parts.process.wealth)


def test_the_state_does_not_grow():
    test, sizes = under_test(grid=GRID[::5]), []
    for seed in range(4):
        test.update(stream(np.random.default_rng(seed), 4_000, audit=1.0))
        sizes.append(sum(array.nbytes for array in test.state().values()))
    assert sizes[1] == sizes[2] == sizes[3]


def test_a_change_is_dated():
    """Unknown items lie far out, and from item 2,001 on nearer."""
    errors = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=2_600) + np.where(np.arange(2_600) < 2_000, 3.0, 1.5)
        unknown = np.full(2_600, Answer.UNKNOWN)
        items = AnsweredItems(scores, unknown, np.ones(2_600), np.ones(2_600))
        test = under_test(items=items[:2_000], grid=np.array([1.0]))
        assert test.certified_at[0] < 2_000 and test.violated_at[0] == 0
        for low in range(2_000, 2_600, 10):
            if test.violated_at[0] == 0:
                test.update(items[low : low + 10])
        assert test.violated_at[0] > 2_000
        errors.append(test.changed_at[0] - 2_000)
    assert np.abs(np.median(errors)) < 10 and np.quantile(np.abs(errors), 0.8) < 40


def test_a_violation_lapses_and_can_be_found_again():
    """Near items, then far ones, then near ones: violated, free again, violated again."""
    rng = np.random.default_rng(0)
    near = (np.arange(3_000) < 500) | (np.arange(3_000) >= 2_000)
    scores = rng.normal(size=3_000) + np.where(near, 1.0, 6.0)
    full = AnsweredItems(scores, np.full(3_000, Answer.UNKNOWN), *np.ones((2, 3_000)))
    test, states = under_test(grid=np.array([1.0])), []
    for low in range(0, 3_000, 10):
        test.update(full[low : low + 10])
        states.append(State(int(test.states[0])))
    seen = [state for state, before in pairwise([*states, None]) if state is not before]
    assert seen[0] is State.UNPROVEN and seen.count(State.VIOLATED) >= 2
    assert states[199] is not State.VIOLATED and states[-1] is not State.CERTIFIED
    assert test.violated_at[0] > 2_000


def test_items_that_say_nothing_change_nothing_but_their_number():
    test = under_test(items=stream(np.random.default_rng(4), 100))
    before = test.state()
    test.update(AnsweredItems(np.zeros(5), np.zeros(5, int), np.ones(5), np.ones(5)))
    known = AnsweredItems(np.zeros(5), np.full(5, Answer.KNOWN), np.ones(5), np.ones(5))
    test.update(known)
    test.update(known[:0])
    assert test.items == 110
    for name, array in test.state().items():
        assert name == "items" or np.array_equal(array, before[name])


def test_one_threshold_and_infinite_ones():
    items = stream(np.random.default_rng(5), 2_000, audit=1.0)
    test = under_test(items=items, grid=np.array([-np.inf, 0.5, np.inf]))
    assert test.states[0] == State.CERTIFIED and test.violated_at[0] == 0
    assert test.violated_at[2] > 0 and test.certified_at[2] == 0
    alone = under_test(items=items[:100], grid=np.array([np.inf]))
    assert alone.states.tolist() == [State.VIOLATED] and alone.changed_at[0] < 50
    extreme = stream(np.random.default_rng(6), 300, audit=1e-6)
    assert np.isfinite(under_test(items=extreme).process.log_wealth).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thresholds": np.array([1.0, 1.0])}, "strictly ascending"),
        ({"thresholds": np.array([])}, "one row"),
        ({"thresholds": np.array([0.0, np.nan])}, "strictly ascending"),
        ({"limit": 0.0}, "must lie in"),
        ({"error": 1.0}, "must lie in"),
        ({"label_error": 0.1}, "below the limit"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    settings = {"risk": Risk.MISS, "thresholds": GRID, "limit": 0.1, "error": 0.1}
    with pytest.raises(ValueError, match=message):
        Evidence(**settings | change)


@pytest.mark.parametrize(
    ("score", "audit", "message"), [(np.nan, 1, "not numbers"), (0, 0, "0, 1")]
)
def test_items_that_cannot_be_are_refused_and_change_nothing(score, audit, message):
    test = under_test()
    with pytest.raises(ValueError, match=message):
        test.update(AnsweredItems(np.array([score]), np.array([2]), np.ones(1), np.array([audit])))
    assert_same(test, under_test())
