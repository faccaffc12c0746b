from functools import cache
from itertools import combinations, permutations

import numpy as np
import pytest

from explain import semivalues
from explain.effects import Slice
from explain.semivalues import PRECISION, Ending, shapley_values
from tests.unit.test_refits import bank, fitted, from_scratch  # noqa: F401

PLAYERS = 7


class Absent:
    """Refits that teach nothing: the "head" is which rows are left out."""

    def __init__(self):
        self.asked = []

    def without(self, rows):
        self.asked.append(frozenset(int(row) for row in rows))
        return self.asked[-1]


def singles(count):
    return [np.array([row]) for row in range(count)]


@cache
def game(count, seed, strength=1.0):
    """Worths with effects of one, two, three and four players, and the values by definition.

    An effect of several players is shared equally among them: the Shapley value of a unanimity
    game (Shapley, 1953).
    """
    rng = np.random.default_rng(seed)
    effects, values = {}, np.zeros(count)
    for size in (1, 2, 3, 4):
        for players in combinations(range(count), size):
            effects[players] = rng.normal() * (1 if size == 1 else strength / 2**size)
            values[list(players)] += effects[players] / size

    @cache
    def utility(absent):
        return 3 + sum(e for players, e in effects.items() if not absent.intersection(players))

    return utility, values


def by_all_orders(worth, count):
    """By brute force: the mean gain over all orders."""
    values = np.zeros(count)
    orders = list(permutations(range(count)))
    for order in orders:
        for place, player in enumerate(order):
            values[player] += worth(order[: place + 1]) - worth(order[:place])
    return values / len(orders)


@pytest.fixture(scope="module")
def held_out(bank):  # noqa: F811
    rng = np.random.default_rng(3)
    features = np.asarray(bank.images.activations.features)[::6]
    return Slice(features + rng.normal(size=features.shape), np.asarray(bank.images.labels)[::6])


GROUPS = [np.arange(0, 25), np.arange(60, 70), np.arange(25, 40), np.arange(130, 180)]


def test_values_are_those_of_all_orders_refitted_from_scratch(bank, fitted, held_out):  # noqa: F811
    def utility(head):
        return -held_out.loss(head)

    known = {}

    def worth(inside):
        key = frozenset(inside)
        if key not in known:
            out = np.concatenate([[], *(GROUPS[g] for g in range(4) if g not in key)])
            kept = np.setdiff1d(np.arange(180), out.astype(int))
            known[key] = utility(from_scratch(bank, kept))
        return known[key]

    found = shapley_values(fitted[1], GROUPS, utility)
    np.testing.assert_allclose(found.values, by_all_orders(worth, 4), atol=1e-6)
    assert found.together == pytest.approx(worth(range(4)) - worth([]), abs=1e-6)
    assert found.ending is Ending.EXACT and not found.standard_errors.any()
    assert (found.refits, found.pairs) == (16, 0)


def test_sampled_values_of_refits_are_the_exact_ones(fitted, held_out, monkeypatch):  # noqa: F811
    groups = np.array_split(np.random.default_rng(0).permutation(180)[:120], 7)

    def values():
        return shapley_values(fitted[1], groups, lambda head: -held_out.loss(head))

    found = values()
    monkeypatch.setattr(semivalues, "_ENUMERATED", 128)
    exact = values()
    assert found.ending is Ending.PRECISE and exact.ending is Ending.EXACT
    assert found.refits < exact.refits == 128
    off = np.abs(found.values - exact.values)
    assert off.max() < 3 * PRECISION * np.abs(exact.values).max()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, PLAYERS])
def test_values_are_those_of_the_theory(count):
    utility, expected = game(count, seed=count)
    found = shapley_values(Absent(), singles(count), utility)
    assert (found.ending is Ending.EXACT) == (count <= 5)
    tolerance = 1e-12 if count <= 5 else 4 * found.standard_errors
    assert (np.abs(found.values - expected) <= tolerance).all()


@pytest.mark.parametrize("count", [4, 12])
def test_values_add_up_to_what_all_do_together(count):
    utility, _ = game(count, seed=1)
    found = shapley_values(Absent(), singles(count), utility)
    everyone = utility(frozenset()) - utility(frozenset(range(count)))
    assert found.together == pytest.approx(everyone)
    cut_off = 0 if count == 4 else semivalues.TOLERANCE * abs(everyone) / count
    assert abs(found.values.sum() - everyone) <= cut_off + 1e-12


@pytest.mark.parametrize("count", [4, 8])
def test_players_who_do_the_same_are_worth_the_same(count):
    def utility(absent):  # the first two are copies: one of them is enough
        return 2.0 * (not {0, 1} <= absent) + sum(
            0.1 * k for k in range(2, count) if k not in absent
        )

    found = shapley_values(Absent(), singles(count), utility)
    np.testing.assert_allclose(found.values, [1, 1, *(0.1 * np.arange(2, count))], atol=1e-12)


@pytest.mark.parametrize("count", [3, 8])
def test_a_group_without_effect_and_one_without_images_are_worth_nothing(count):
    def utility(absent):
        return sum(np.sqrt(k) for k in range(1, count) if k not in absent) ** 2

    refits = Absent()
    groups = [*singles(count), np.array([], int)]
    found = shapley_values(refits, groups, utility)
    assert found.values[0] == found.values[-1] == 0
    assert found.standard_errors[0] == found.standard_errors[-1] == 0
    assert found.values[1:-1].min() > 0
    assert len(refits.asked) == len(set(refits.asked)) == found.refits


def test_one_group_is_worth_what_it_does_alone():
    refits, calls = Absent(), []
    found = shapley_values(
        refits, [np.array([4, 9])], lambda absent: 5.0 - len(absent),
        progress=lambda *call: calls.append(call),
    )  # fmt: skip
    assert found.values == [2] and found.standard_errors == [0] and found.together == 2
    assert set(refits.asked) == {frozenset(), frozenset([4, 9])}
    assert calls == [(1, 2), (2, 2)]


def test_effects_of_one_and_two_are_exact_when_sampled():
    rng = np.random.default_rng(5)
    alone, pairs = rng.normal(size=9), np.triu(rng.normal(size=(9, 9)), 1)

    def utility(absent):
        inside = np.array([k not in absent for k in range(9)], float)
        return alone @ inside + inside @ pairs @ inside

    found = shapley_values(Absent(), singles(9), utility)
    np.testing.assert_allclose(found.values, alone + (pairs + pairs.T).sum(axis=1) / 2)
    assert found.ending is Ending.PRECISE and found.pairs == 10
    assert found.standard_errors.max() < 1e-12


def covered(pairs, runs=200):
    """Share of values within two standard errors, at this many pairs or the stopping rule's."""
    utility, expected = game(PLAYERS, seed=11, strength=4.0)
    hits = []
    for seed in range(runs):
        found = shapley_values(
            Absent(), singles(PLAYERS), utility,
            most_refits=2 + pairs * 2 * (PLAYERS - 1), seed=seed,
        )  # fmt: skip
        assert found.pairs == pairs or found.ending is Ending.PRECISE
        hits.append(np.abs(found.values - expected) <= 2 * found.standard_errors)
    return np.mean(hits)


def test_two_standard_errors_cover_the_value(monkeypatch):
    """In a game where worths pass near the full one by chance, so that permutations are cut."""
    assert 0.91 < covered(300) < 0.97  # stopped where precise
    monkeypatch.setattr(semivalues, "PRECISION", 0.0)  # never stopped
    assert 0.89 < covered(10) < 0.95  # 92.4% by Student's t with nine degrees of freedom
    assert 0.92 < covered(60) < 0.97
    monkeypatch.setattr(semivalues, "_CUT", 1.0)  # as published: biased, and the errors are wrong
    assert covered(60) < 0.85


def test_it_stops_when_precise_or_at_the_maximum():
    utility, expected = game(PLAYERS, seed=2, strength=4.0)
    precise = shapley_values(Absent(), singles(PLAYERS), utility)
    assert precise.ending is Ending.PRECISE and precise.pairs >= 10
    assert precise.standard_errors.max() <= PRECISION * np.abs(precise.values).max()
    for most in (26, 60, 100):
        refits, calls = Absent(), []
        cut = shapley_values(
            refits, singles(PLAYERS), utility, most_refits=most,
            progress=lambda *call, calls=calls: calls.append(call),
        )  # fmt: skip
        assert cut.ending is Ending.MAXIMUM and cut.pairs == (most - 2) // 12
        assert cut.refits == len(refits.asked) == len(calls) <= most
        assert calls[-1] == (cut.refits, most)
        assert cut.standard_errors.max() > precise.standard_errors.max()
    assert np.abs(precise.values - expected).max() < 4 * precise.standard_errors.max()


def test_it_is_the_same_again_for_the_same_seed():
    utility, _ = game(PLAYERS, seed=3, strength=4.0)
    one, same, other = (
        shapley_values(Absent(), singles(PLAYERS), utility, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one.values, same.values)
    assert (one.values != other.values).any()


def test_cutting_permutations_short_saves_refits_and_changes_little(monkeypatch):
    strengths = np.where(np.arange(30) < 2, 1.0, 1e-7)

    def values():  # two matter, with diminishing returns, and many hardly do
        def utility(absent):
            return np.log1p(sum(strengths[k] for k in range(30) if k not in absent))

        return shapley_values(Absent(), singles(30), utility, most_refits=1_200)

    monkeypatch.setattr(semivalues, "PRECISION", 0.0)
    found = values()
    monkeypatch.setattr(semivalues, "TOLERANCE", 0.0)
    whole = values()
    assert found.pairs == whole.pairs == 20 and found.refits < 0.95 * whole.refits
    np.testing.assert_allclose(found.values, whole.values, atol=1e-6)
    np.testing.assert_allclose(found.values[:2], np.log(3) / 2, atol=1e-5)


def test_where_nothing_does_anything_it_ends():
    found = shapley_values(Absent(), singles(9), lambda absent: 0.5)
    assert not found.values.any() and found.ending is Ending.PRECISE


def test_values_beside_large_gains_end_at_the_maximum():
    def utility(absent):  # each joining turns it over
        return float(len(absent) % 2)

    found = shapley_values(Absent(), singles(7), utility, most_refits=1_000)
    assert found.ending is Ending.MAXIMUM and found.pairs == 83
    assert (np.abs(found.values + 1 / 7) <= 4 * found.standard_errors).all()


def test_what_cannot_be_valued_is_refused():
    with pytest.raises(ValueError, match="no groups"):
        shapley_values(Absent(), [], len)
    with pytest.raises(ValueError, match=r"images in common \(1\)"):
        shapley_values(Absent(), [np.array([1, 2]), np.array([2, 3])], len)
    with pytest.raises(ValueError, match="100 groups take at least 398 refits"):
        shapley_values(Absent(), singles(100), len, most_refits=397)
    with pytest.raises(ValueError, match="The utility without 2 images is nan"):
        shapley_values(Absent(), singles(2), lambda absent: float("nan"))
