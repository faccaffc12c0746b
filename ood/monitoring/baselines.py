"""Rules for choosing a threshold that are known from elsewhere, each a `Chooser`.

What is published for false alarms or for coverage is here turned to the miss rate among unknown
items: too high a threshold misses more of them. Labels that were asked for with some probability
count with one over it. None of these raises an alarm; the first does not move at all.
"""

import numpy as np

from ood.monitoring.choosing import Restorable
from ood.monitoring.payoffs import Claim, Risk, largest_bets, payoffs
from ood.monitoring.processes import Process


class Fixed(Restorable):
    """The threshold that keeps a stated share of calibration images, whatever is seen."""

    def __init__(self, shape: tuple[int, ...], threshold: float) -> None:
        """Of (...) streams."""
        self.threshold = np.full(shape, threshold)

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """Learn nothing."""


class QuantileTracking(Restorable):
    """Moves down by a step after a miss, and up a little after a find.

    threshold - step weight (1{miss} - target): online gradient steps on the pinball loss (the
    quantile tracker of Angelopoulos, Candès and Tibshirani, NeurIPS 2023, equation 3; Gibbs and
    Candès, NeurIPS 2021, on the level instead).

    Attributes:
        step: in the unit of scores.
    """

    def __init__(self, start: np.ndarray, target: float, step: float) -> None:
        """Of (...) thresholds to start from."""
        self.threshold = np.array(start, float)
        self.target, self.step = target, step

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """See `Chooser.observe`."""
        excess = (score <= self.threshold) - self.target
        self.threshold = self.threshold - self.step * np.where(unknown, weight, 0.0) * excess


class ConformalPID(Restorable):
    """Quantile tracking and, against lasting errors, the tangent of their sum.

    threshold = tracked - gain tan(sum of errors ln(t + 1) / (saturation (t + 1))), with the
    argument cut to +-pi / 2 (Angelopoulos, Candès and Tibshirani, NeurIPS 2023, equations 3 to 6),
    without their forecaster of scores.

    Attributes:
        gain: in the unit of scores, K_I in the paper.
        saturation: C_sat in the paper; after t items with as many as t / ln t saturation pi / 2
            errors too many everything is flagged.
    """

    def __init__(
        self, start: np.ndarray, target: float, step: float, gain: float, saturation: float
    ) -> None:
        """Of (...) thresholds to start from; the other arguments as in `QuantileTracking`."""
        self.threshold = np.array(start, float)
        self.target, self.step, self.gain, self.saturation = target, step, gain, saturation
        self._tracked = self.threshold.copy()
        self._errors = np.zeros(self.threshold.shape)
        self._items = np.zeros(self.threshold.shape)

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """See `Chooser.observe`."""
        moved = np.where(unknown, weight, 0.0)
        excess = moved * ((score <= self.threshold) - self.target)
        self._tracked = self._tracked - self.step * excess
        self._errors = self._errors + excess
        self._items = self._items + moved
        later = self._items + 1
        angle = np.clip(
            self._errors * np.log(later) / (self.saturation * later), -np.pi / 2, np.pi / 2
        )
        saturated = np.where(angle > 0, np.inf, -np.inf)
        integral = np.where(np.abs(angle) < np.pi / 2, np.tan(angle), saturated)
        self.threshold = self._tracked - self.gain * integral


class RunningRisk(Restorable):
    """The largest threshold whose miss rate so far has not been above the limit 25 times.

    A threshold that was dropped stays dropped; the comparison of Timans, Verma, Nalisnick and
    Naesseth, UAI 2025. Without any guarantee: chance alone drops many.
    """

    ALLOWED = 25

    def __init__(self, shape: tuple[int, ...], thresholds: np.ndarray, limit: float) -> None:
        """Of (...) streams and (K,) ascending thresholds."""
        self.thresholds, self.limit = thresholds, limit
        self._missed = np.zeros((*shape, len(thresholds)))
        self._items = np.zeros((*shape, 1))
        self._above = np.zeros((*shape, len(thresholds)), np.int64)

    @property
    def threshold(self) -> np.ndarray:
        """(...) for the next item."""
        return _largest(self.thresholds, self._above < self.ALLOWED)

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """See `Chooser.observe`."""
        moved = np.where(unknown, weight, 0.0)[..., None]
        self._missed += moved * (np.asarray(score)[..., None] <= self.thresholds)
        self._items += moved
        self._above += (self._missed > self.limit * self._items) & (moved > 0)


class LargestNotRejected(Restorable):
    """The largest threshold at which too high a miss rate was not shown; never taken back.

    Timans, Verma, Nalisnick and Naesseth, UAI 2025: a threshold is dropped for good when its
    wealth reaches 1 / error; here on the payoffs of partial labels. With the betting process of
    their paper, and all labels, it is their method for this risk.
    """

    def __init__(
        self, thresholds: np.ndarray, limit: float, error: float, audit: float, process: Process
    ) -> None:
        """Of a fresh process of (..., K) wealths.

        Args:
            thresholds: (K,) ascending.
            limit: of the miss rate.
            error: probability of ever dropping a threshold within the limit.
            audit: least label probability of an accepted item.
            process: bets that the miss rate is above the limit.
        """
        self.thresholds, self.limit, self.error, self.audit = thresholds, limit, error, audit
        self._process = process
        self._kept = np.ones(process.log_wealth.shape, bool)

    @property
    def threshold(self) -> np.ndarray:
        """(...) for the next item."""
        return _largest(self.thresholds, self._kept)

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """See `Chooser.observe`."""
        paid = payoffs(Risk.MISS, self.thresholds, score, unknown, weight, self.limit)
        largest = largest_bets(
            Claim.VIOLATION, Risk.MISS, self.thresholds, self.threshold, self.audit, self.limit
        )
        self._process.update(paid, largest)
        self._kept &= self._process.log_wealth < -np.log(self.error)

    def state(self) -> dict[str, np.ndarray]:
        """The wealths and what is kept; the rest are settings."""
        return {"kept": self._kept.copy()} | {
            f"process.{name}": value.copy() for name, value in self._process.state().items()
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over a stored state."""
        self._kept = state["kept"].copy()
        self._process = type(self._process).restore(
            {
                name.removeprefix("process."): value
                for name, value in state.items()
                if name != "kept"
            }
        )


class IteratedLogarithm(Restorable):
    """The largest threshold whose miss rate so far, plus a bound for all times, is in the limit.

    Vishwakarma, Lin and Vinayak, AISTATS 2024, with the constants that they use in experiments:
    bound = 1/2 sqrt(c (ln ln(4.75 c N) + ln(1 / error)) / N) for N labelled unknown items, c the
    mean of their squared weights. Where none is found, the smallest threshold.
    """

    def __init__(
        self, shape: tuple[int, ...], thresholds: np.ndarray, limit: float, error: float
    ) -> None:
        """Of (...) streams and (K,) ascending thresholds."""
        self.thresholds, self.limit, self.error = thresholds, limit, error
        self._missed = np.zeros((*shape, len(thresholds)))
        # Labelled unknown items: how many, their weights, the squares of those.
        self._sums = np.zeros((3, *shape, 1))

    @property
    def threshold(self) -> np.ndarray:
        """(...) for the next item."""
        items, weights, squares = np.maximum(self._sums, 1)
        spread = squares / items
        log = np.log(np.log(4.75 * spread * items)) + np.log(1 / self.error)
        bound = self._missed / weights + 0.5 * np.sqrt(spread * log / items)
        return _largest(self.thresholds, (bound <= self.limit) & (self._sums[0] > 0))

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """See `Chooser.observe`."""
        moved = np.where(unknown, weight, 0.0)[..., None]
        self._missed += moved * (np.asarray(score)[..., None] <= self.thresholds)
        self._sums += [moved > 0, moved, np.square(moved)]


def _largest(thresholds: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The largest allowed one; the smallest of all where none is."""
    last: np.ndarray = allowed.shape[-1] - 1 - np.argmax(allowed[..., ::-1], axis=-1)
    return thresholds[np.where(allowed.any(axis=-1), last, 0)]
