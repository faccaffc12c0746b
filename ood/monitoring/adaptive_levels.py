"""Thresholds at a level among recent scores, where misses move the level: ACI and DtACI."""

import numpy as np

from ood.monitoring.choosing import Restorable

_FEW = 20


class _RecentScores(Restorable):
    """The last labelled unknown scores, in memory that is constant: a window's length a stream."""

    def __init__(self, start: np.ndarray, window: int) -> None:
        self._start = np.array(start, float)
        self._items = np.zeros(self._start.shape, np.int64)
        self._scores = np.full((*self._start.shape, window), np.inf)
        self._weights = np.zeros((*self._start.shape, window))

    def _add(self, score: np.ndarray, weight: np.ndarray) -> None:
        moved = weight > 0
        slot = (self._items[moved] % self._scores.shape[-1])[..., None]
        for kept, value in ((self._scores, score), (self._weights, weight)):
            rows = kept[moved]
            np.put_along_axis(rows, slot, np.broadcast_to(value, moved.shape)[moved][..., None], -1)
            kept[moved] = rows
        self._items = self._items + moved

    def _at_level(self, level: np.ndarray) -> np.ndarray:
        """(...) the largest recent score below or at which at most this share of weight lies."""
        order = np.argsort(self._scores, axis=-1)
        scores = np.take_along_axis(self._scores, order, axis=-1)
        shares = np.take_along_axis(self._weights, order, axis=-1).cumsum(axis=-1)
        shares /= np.maximum(shares[..., -1:], 1)
        within = (shares <= level[..., None]) & np.isfinite(scores)
        best = np.where(within, scores, -np.inf).max(axis=-1)
        best = np.where(level >= 1, np.inf, best)
        return np.where(self._items < _FEW, self._start, best)

    def _level_of(self, score: np.ndarray) -> np.ndarray:
        """(...) the least level at which such a score is missed."""
        below = self._scores <= np.asarray(score)[..., None]
        total = np.maximum(self._weights.sum(axis=-1), 1)
        share: np.ndarray = (self._weights * below).sum(axis=-1) / total
        return share


class ACI(_RecentScores):
    """The level falls after a miss and rises after a find.

    level + rate weight (target - 1{miss}) (adaptive conformal inference; Gibbs and Candès, NeurIPS
    2021, equation 2). At a level of 0 or less everything is flagged, at 1 or more nothing.
    Until 20 unknown items are labelled the threshold is the one to start from.
    """

    def __init__(self, start: np.ndarray, target: float, rate: float, window: int) -> None:
        """Of (...) thresholds to start from, and a window of so many scores."""
        super().__init__(start, window)
        self.target, self.rate = target, rate
        self.threshold = self._start.copy()
        self._level = np.full(self._start.shape, target)

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """See `Chooser.observe`."""
        weight = np.where(unknown, weight, 0.0)
        missed = score <= self.threshold
        self._level = self._level + self.rate * weight * (self.target - missed)
        self._add(np.asarray(score), weight)
        self.threshold = self._at_level(self._level)


class DtACI(_RecentScores):
    """Several ACI rates, weighed by the pinball loss of their levels.

    Dynamically-tuned adaptive conformal inference (Gibbs and Candès, JMLR 2024, algorithm 1), with
    the rates, the learning rate 2.72 and the share 1 / 1,000 of their code.

    Attributes:
        RATES: (E,) of the experts.
    """

    RATES = 0.001 * 2.0 ** np.arange(8)
    LEARNING, SHARE = 2.72, 0.001

    def __init__(self, start: np.ndarray, target: float, window: int) -> None:
        """Of (...) thresholds to start from, and a window of so many scores."""
        super().__init__(start, window)
        self.target = target
        self.threshold = self._start.copy()
        shape = (*self._start.shape, len(self.RATES))
        self._levels = np.full(shape, target)
        self._trust = np.full(shape, 1 / len(self.RATES))

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """See `Chooser.observe`."""
        weight = np.where(unknown, weight, 0.0)
        by = weight[..., None]
        distance = self._level_of(score)[..., None] - self._levels
        missed = distance <= 0
        loss = np.where(missed, -(1 - self.target) * distance, self.target * distance)
        trust = self._trust * np.exp(-self.LEARNING * by * loss)
        trust /= trust.sum(axis=-1, keepdims=True)
        shared = (1 - self.SHARE) * trust + self.SHARE / len(self.RATES)
        self._trust = np.where(by > 0, shared, self._trust)
        self._levels = self._levels + self.RATES * by * (self.target - missed)
        self._add(np.asarray(score), weight)
        self.threshold = self._at_level((self._trust * self._levels).sum(axis=-1))
