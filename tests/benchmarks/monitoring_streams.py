"""Streams whose risk is at its limit or below, and rules without a guarantee, for `monitoring`."""

from collections.abc import Callable, Iterator

import numpy as np

from ood.monitoring.payoffs import Claim, Risk, largest_bets, payoffs

LIMIT = 0.1

Shape = tuple[int, ...]
Steps = Iterator[tuple[np.ndarray, np.ndarray | float]]


class RunningRisk:
    """No guarantee: alarms when the risk so far was above the limit 25 times (Timans et al.)."""

    def __init__(self, shape: Shape) -> None:
        self.total, self.above = np.zeros(shape), np.zeros(shape, int)

    def update(self, paid: np.ndarray, largest: np.ndarray | float) -> None:
        self.total += paid
        self.above += (self.total > 0) & (paid != 0)

    @property
    def log_wealth(self) -> np.ndarray:
        return np.where(self.above >= 25, np.inf, 0)


class PeekingTest:
    """No guarantee: a one-sided z-test at the error, looked at after each item from the 30th."""

    def __init__(self, shape: Shape) -> None:
        self.items, self.total, self.squares = np.zeros((3, *shape))

    def update(self, paid: np.ndarray, largest: np.ndarray | float) -> None:
        self.items += paid != 0
        self.total += paid
        self.squares += np.square(paid)

    @property
    def log_wealth(self) -> np.ndarray:
        z = self.total / np.sqrt(np.maximum(self.squares, 1e-12))
        return np.where((self.items >= 30) & (z > 1.2816), np.inf, 0)


# --- streams at the limit, as payoffs and largest bets


def losses_at(rng: np.random.Generator, shape: Shape, risks: Iterator[np.ndarray]) -> Steps:
    for risk in risks:
        yield (rng.uniform(size=shape) < risk) - LIMIT, 1 / LIMIT


def at_limit(rng: np.random.Generator, shape: Shape, items: int) -> Steps:
    return losses_at(rng, shape, (np.array(LIMIT) for _ in range(items)))


def dips(rng: np.random.Generator, shape: Shape, items: int) -> Steps:
    """Down to 0.02 for 250 items, back to the limit for 250, again and again."""
    return losses_at(rng, shape, (np.array(LIMIT if t // 250 % 2 else 0.02) for t in range(items)))


def dependent(rng: np.random.Generator, shape: Shape, items: int) -> Steps:
    """A hidden Markov chain: losses of 0 or 1 at the limit; small ones; at 0.02."""
    state = rng.integers(3, size=shape)
    for _ in range(items):
        state = np.where(rng.uniform(size=shape) < 0.01, rng.integers(3, size=shape), state)
        hard = rng.uniform(size=shape) < np.where(state == 2, 0.02, LIMIT)
        yield np.where(state == 1, rng.beta(0.5, 4.5, shape), hard) - LIMIT, 1 / LIMIT


def continuous(rng: np.random.Generator, shape: Shape, items: int) -> Steps:
    for _ in range(items):
        yield rng.beta(0.5, 4.5, shape) - LIMIT, 1 / LIMIT


def audits(risk: Risk, audit: float, delay: int, thresholds: np.ndarray) -> Callable[..., Steps]:
    """Half of the items unknown, scores uniform; the deployed threshold follows known labels.

    It crosses the candidates, so that label probabilities and largest bets change. False alarms
    are tested at 1 - threshold, so that the same candidates are safe.
    """
    is_miss = risk is Risk.MISS
    candidates = thresholds if is_miss else np.sort(1 - thresholds)

    def steps(rng: np.random.Generator, shape: Shape, items: int) -> Steps:
        waiting: list[np.ndarray] = []
        deployed = np.full(shape[0], np.median(candidates))
        low, high = candidates.max() - 0.1, candidates.max() + 0.1
        for _ in range(items):
            score, unknown = rng.uniform(size=shape[0]), rng.uniform(size=shape[0]) < 0.5
            chance = np.where(score > deployed, 1.0, audit)
            weight = (rng.uniform(size=shape[0]) < chance) / chance
            bound = largest_bets(Claim.VIOLATION, risk, candidates, deployed, audit, LIMIT)
            yield payoffs(risk, candidates, score, unknown, weight, LIMIT), bound
            mistaken = unknown & (score <= deployed) if is_miss else ~unknown & (score > deployed)
            relevant = weight * (unknown == is_miss)
            towards = (LIMIT * relevant - weight * mistaken) * (1 if is_miss else -1)
            waiting.append(towards)
            if len(waiting) > delay:
                deployed = np.clip(deployed + 0.02 * waiting.pop(0), low, high)

    return steps


def audited(thresholds: np.ndarray) -> dict[str, Callable[..., Steps]]:
    miss, false_alarm = Risk.MISS, Risk.FALSE_ALARM
    return {
        "audits .1": audits(miss, 0.1, 0, thresholds),
        "audits .1, delay 50": audits(miss, 0.1, 50, thresholds),
        "audits .02": audits(miss, 0.02, 0, thresholds),
        "audits .02, delay 50": audits(miss, 0.02, 50, thresholds),
        "false alarms, audits .1, delay 50": audits(false_alarm, 0.1, 50, thresholds),
    }


FULL_LABELS = {
    "at the limit": at_limit, "dips and bursts": dips, "dependent": dependent,
    "continuous": continuous,
}  # fmt: skip
