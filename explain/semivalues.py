"""What groups of training images are worth together, each with its fair share: by refits.

Shapley values only. Banzhaf values (Wang and Jia, AISTATS 2023) withstand noise in a coalition's
worth, but a refit to the optimum has none; and they do not add up to what all groups do together,
which is what a person wants divided.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product

import numpy as np
from scipy.special import comb

from explain.head import RefittedHead
from explain.refits import HeadRefits

MOST_REFITS = 2_000
PRECISION = 0.05
TOLERANCE = 0.01
_ENUMERATED = 32  # coalitions of five groups, about as many as ten pairs of permutations meet
_FEWEST_PAIRS = 10
_CUT = 0.5


class Ending(StrEnum):
    """Why no more coalitions were refitted."""

    EXACT = "every coalition was refitted"
    PRECISE = "the standard errors are small enough"
    MAXIMUM = "the maximum number of refits allows no more"


@dataclass(frozen=True)
class GroupValues:
    """Shapley values of P groups, in the unit of the utility; negative for a group that hurts.

    Attributes:
        values: (P,) float64.
        standard_errors: (P,) of the values, from the spread over pairs of permutations; zero when
            exact. Twice the error to either side covers the value in 92% of cases at ten pairs,
            in 95% at many, and in fewer below ten.
        together: utility with all groups minus utility without any. Exact values add up to it;
            sampled ones to within 1% of a group's mean value.
        pairs: of permutations drawn; 0 when exact.
        refits: distinct coalitions that the last layer was refitted on.
        ending: why there were no more.
    """

    values: np.ndarray
    standard_errors: np.ndarray
    together: float
    pairs: int
    refits: int
    ending: Ending


def shapley_values(
    refits: HeadRefits, groups: Sequence[np.ndarray], utility: Callable[[RefittedHead], float],
    most_refits: int = MOST_REFITS, seed: int = 0,
    progress: Callable[[int, int], object] = lambda done, most: None,
) -> GroupValues:  # fmt: skip
    """The Shapley value of each group: what it adds, averaged over all orders of joining.

    A coalition of groups is worth the utility of the last layer refitted on it and on everybody
    who is in no group, who always stay. Up to five groups, all coalitions are refitted. More are
    sampled as Ghorbani and Zou do (ICML 2019, algorithm 1): random permutations, cut short where
    the worth is within 1% of a group's mean value of the full one. Theirs are always cut, which
    takes the rest to add nothing; but groups that help and groups that hurt cancel out, and then
    values are off, by 10% in the tests, with standard errors that do not know. Here a coin
    decides, and what is not cut counts twice, so that the mean is right.

    Each permutation is drawn with its reverse, which makes effects of single groups and of two
    together exact (antithetic; Mitchell, Cooper, Frank and Holmes, JMLR 2022). It stops when ten
    pairs are drawn and the largest standard error is at most 5% of the largest value, or at the
    maximum. A gain met in fewer than one pair in ten may be missed.

    Args:
        refits: of the last layer.
        groups: P arrays of rows of the Bank, which share none; an empty one is worth zero.
        utility: of a head, larger is better; minus the mean loss on a slice, for example.
        most_refits: the maximum; a permutation pair counts as 2 (P - 1), whatever it saves.
        seed: of the permutations.
        progress: called after each refit with refits done and the most there can be.

    Raises:
        ValueError: without groups, when groups share images, when the maximum is too small for
            two pairs of permutations, or when a utility is not finite.
        RefitDidNotConverge: as `HeadRefits.without`.
    """
    count = len(groups)
    _check(groups, most_refits)
    if 2**count <= min(_ENUMERATED, most_refits):
        return _enumerated(_Game(refits, groups, utility, progress, 2**count))
    game = _Game(refits, groups, utility, progress, most_refits)
    return _sampled(game, (most_refits - 2) // (2 * (count - 1)), np.random.default_rng(seed))


@dataclass(frozen=True)
class _Game:
    """Worths of coalitions; each is refitted once."""

    refits: HeadRefits
    groups: Sequence[np.ndarray]
    utility: Callable[[RefittedHead], float]
    progress: Callable[[int, int], object]
    most: int
    known: dict[bytes, float] = field(default_factory=dict)

    def worth(self, inside: np.ndarray) -> float:
        """Of the coalition of the groups where (P,) bool is true."""
        empty = np.array([len(group) == 0 for group in self.groups])
        key = (inside | empty).tobytes()
        if key not in self.known:
            out = [g for g, stays in zip(self.groups, inside, strict=True) if not stays]
            rows = np.concatenate([np.empty(0, np.int64), *out]).astype(np.int64)
            worth = float(self.utility(self.refits.without(rows)))
            if not math.isfinite(worth):
                raise ValueError(f"The utility without {len(rows):,} images is {worth}.")
            self.known[key] = worth
            self.progress(len(self.known), self.most)
        return self.known[key]


def _enumerated(game: _Game) -> GroupValues:
    """By definition: a group's gains over all coalitions of the others, weighed by their size."""
    count = len(game.groups)
    coalitions = product([False, True], repeat=count)
    worths = np.array([game.worth(np.array(inside)) for inside in coalitions])
    together = float(worths[-1] - worths[0])
    worths = worths.reshape((2,) * count)  # one axis a group: without it, with it
    sizes = np.indices((2,) * (count - 1)).sum(axis=0)
    weights = 1 / (count * comb(count - 1, sizes))
    values = [
        (np.diff(worths, axis=group).squeeze(group) * weights).sum() for group in range(count)
    ]
    return GroupValues(
        np.array(values), np.zeros(count), together, 0, len(game.known), Ending.EXACT
    )


def _sampled(game: _Game, most_pairs: int, rng: np.random.Generator) -> GroupValues:
    count = len(game.groups)
    full, none = (game.worth(np.full(count, stay)) for stay in (True, False))
    samples: list[np.ndarray] = []
    ending = Ending.MAXIMUM
    while len(samples) < most_pairs:
        order = rng.permutation(count)
        walks = [_gains(game, way, full, none, rng) for way in (order, order[::-1])]
        samples.append((walks[0] + walks[1]) / 2)
        if len(samples) >= _FEWEST_PAIRS:
            values, errors = _mean_and_error(samples)
            if errors.max() <= PRECISION * np.abs(values).max():
                ending = Ending.PRECISE
                break
    values, errors = _mean_and_error(samples)
    return GroupValues(values, errors, full - none, len(samples), len(game.known), ending)


def _gains(
    game: _Game, order: np.ndarray, full: float, none: float, rng: np.random.Generator
) -> np.ndarray:
    """(P,) what each group adds when they join in this order; on average where it is cut."""
    gains, inside = np.zeros(len(order)), np.zeros(len(order), bool)
    tolerance = TOLERANCE * abs(full - none) / len(order)
    before, weight = none, 1.0
    for group in order:
        if weight == 1 and abs(full - before) < tolerance:
            if rng.random() < _CUT:
                break
            weight = 1 / (1 - _CUT)
        inside[group] = True
        after = game.worth(inside)
        gains[group] = weight * (after - before)
        before = after
    return gains


def _mean_and_error(samples: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    found = np.array(samples)
    return found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(len(found))


def _check(groups: Sequence[np.ndarray], most_refits: int) -> None:
    count = len(groups)
    if count == 0:
        raise ValueError("There are no groups to value; give at least one.")
    rows = np.concatenate([np.unique(group) for group in groups])
    shared = len(rows) - len(np.unique(rows))
    if shared:
        raise ValueError(f"Groups have images in common ({shared:,}); each may be in one only.")
    fewest = min(2**count, 4 * count - 2)
    if most_refits < fewest:
        raise ValueError(
            f"{count:,} groups take at least {fewest:,} refits, but no more than {most_refits:,} "
            "are allowed. Join groups or allow more."
        )
