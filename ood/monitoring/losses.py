"""What a labelled item costs at each threshold, from 0 to 1."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pinball:
    """Least on average at the largest threshold whose miss rate is within the target.

    The pinball loss (Koenker and Bassett, Econometrica 1978) of an unknown item's score, with
    distances counted in steps of the grid, so that no scale of the scores comes in: from one
    threshold to the next the loss grows by 1{score <= the next} - target, whose mean is the miss
    rate there less the target. Known items cost nothing.

    Attributes:
        target: miss rate among unknown items, in (0, 1).
    """

    target: float

    def __call__(
        self, thresholds: np.ndarray, scores: np.ndarray, unknown: np.ndarray
    ) -> np.ndarray:
        """(K,) ascending thresholds, (...) scores and labels to (..., K) float64 in [0, 1]."""
        k = np.arange(len(thresholds))
        below = np.searchsorted(thresholds, scores)[..., None]
        over, under = np.maximum(k - below + 1, 0), np.maximum(below - 1 - k, 0)
        steps = (1 - self.target) * over + self.target * under
        largest = len(thresholds) * max(self.target, 1 - self.target)
        return np.where(np.asarray(unknown)[..., None], steps / largest, 0.0)


@dataclass(frozen=True)
class Costs:
    """What mistakes and labels cost, each at least 0, in a unit of one's own.

    Attributes:
        miss: of an unknown item accepted.
        false_alarm: of a known item flagged.
        label: of labelling a flagged item.
    """

    miss: float
    false_alarm: float
    label: float

    def __call__(
        self, thresholds: np.ndarray, scores: np.ndarray, unknown: np.ndarray
    ) -> np.ndarray:
        """(..., K) float64 in [0, 1], as a share of the most that one item can cost."""
        flagged = np.asarray(scores)[..., None] > thresholds
        is_unknown = np.asarray(unknown)[..., None]
        if_flagged = np.where(is_unknown, self.label, self.false_alarm + self.label)
        if_accepted = np.where(is_unknown, self.miss, 0.0)
        largest = max(self.miss, self.false_alarm + self.label)
        return np.where(flagged, if_flagged, if_accepted) / largest
