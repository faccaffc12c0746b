"""Conformal p-values: how many normal images look at least this odd."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import beta

SMALLEST_CATEGORY = 200


@dataclass(frozen=True)
class ConformalCalibration:
    """A detector's scores on held-out images of the known classes.

    For a new known image, exchangeable with them, P(p <= a) <= a for every level a
    (Vovk, Gammerman and Shafer, 2005; Laxhammar and Falkman, 2010). Made from a
    `CalibrationSet` only: scores of the detector's own fit set would flag far more than a.

    Attributes:
        scores: (n,) float32, ascending.
    """

    scores: np.ndarray

    def __post_init__(self) -> None:
        if self.scores.ndim != 1 or len(self.scores) == 0 or not np.isfinite(self.scores).all():
            raise ValueError("Calibration scores must be finite, one an image, and at least one.")
        if np.any(np.diff(self.scores) < 0):
            raise ValueError("Calibration scores must ascend.")

    def __len__(self) -> int:
        return len(self.scores)

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """(N,) scores to (N,) p = (1 + #{calibration >= score}) / (n + 1).

        Raises:
            ValueError: when a score is NaN.
        """
        if np.isnan(scores).any():
            raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN.")
        at_least = len(self) - np.searchsorted(self.scores, scores, side="left")
        return (1 + at_least) / (len(self) + 1)

    def threshold(self, level: float) -> float:
        """The score above which p <= level; infinite when n is too small to ever say so."""
        return self.threshold_of_rank(largest_rank(level, len(self)))

    def threshold_of_rank(self, rank: int) -> float:
        """The score above which fewer than `rank` calibration images lie; infinite for 0."""
        return float(self.scores[-rank]) if rank else float("inf")


@dataclass(frozen=True)
class MondrianCalibration:
    """Calibration by predicted class.

    A new known image is compared with calibration images of its category only, so that
    P(p <= a | category) <= a (Vovk, Gammerman and Shafer, 2005: a Mondrian taxonomy).
    The categories are the predicted classes, not the true ones; those with fewer than
    `SMALLEST_CATEGORY` calibration images share one, in which the promise holds on average over
    its classes: one of them may be flagged more often than another. They are chosen by counting
    predictions, never by looking at scores.

    Attributes:
        categories: K calibrations, one a category.
        category_of: (C,) int, the category of each class.
    """

    categories: tuple[ConformalCalibration, ...]
    category_of: np.ndarray

    @classmethod
    def fit(cls, scores: np.ndarray, predicted: np.ndarray, num_classes: int) -> Self:
        """Split (n,) calibration scores by (n,) predicted classes, small classes together.

        While the shared category itself is too small, the smallest class of its own joins it; at
        worst all classes share one category, which is the marginal calibration.

        Raises:
            ValueError: when lengths differ, or a predicted class is not one of `num_classes`.
        """
        if len(scores) != len(predicted):
            raise ValueError(f"{len(scores)} scores for {len(predicted)} predicted classes.")
        counts = np.bincount(predicted, minlength=num_classes)
        if len(counts) > num_classes:
            raise ValueError(f"Class {len(counts) - 1} is predicted, of only {num_classes}.")
        ascending = np.argsort(counts, kind="stable")
        pooled = int((counts < SMALLEST_CATEGORY).sum())
        while 0 < pooled < num_classes and counts[ascending[:pooled]].sum() < SMALLEST_CATEGORY:
            pooled += 1
        category_of = np.empty(num_classes, int)
        category_of[ascending[:pooled]] = 0
        category_of[np.sort(ascending[pooled:])] = np.arange(num_classes - pooled) + (pooled > 0)
        members = category_of[predicted]
        categories = (np.sort(scores[members == k]) for k in range(category_of.max() + 1))
        return cls(tuple(map(ConformalCalibration, categories)), category_of)

    def p_values(self, scores: np.ndarray, predicted: np.ndarray) -> np.ndarray:
        """(N,) p-values of (N,) scores, each within the category of its predicted class."""
        members = self.category_of[predicted]
        p_values = np.empty(len(scores))
        for category in np.unique(members):
            rows = members == category
            p_values[rows] = self.categories[category].p_values(scores[rows])
        return p_values

    def sizes(self, predicted: np.ndarray) -> np.ndarray:
        """(N,) int: how many calibration images each p-value rests on."""
        return np.array([len(c) for c in self.categories])[self.category_of[predicted]]


def largest_rank(level: float, n: int) -> int:
    """floor(level (n + 1)), safe against 0.05 * 20 = 0.9999...; p <= level needs it positive."""
    return int(np.floor(level * (n + 1) * (1 + 1e-12)))


def rank_interval(rank: int, n: int, coverage: float = 0.95) -> tuple[float, float]:
    """Where the share of known images flagged lies, for one calibration set of n.

    Flagged is what fewer than `rank` calibration images reach or exceed. Over calibration sets
    that share is Beta(rank, n + 1 - rank) (Vovk, 2012, proposition 2); the interval holds
    `coverage` of it, equal tails.
    """
    if rank == 0:
        return 0.0, 0.0
    if rank > n:
        return 1.0, 1.0
    tail = (1 - coverage) / 2
    low, high = beta.ppf([tail, 1 - tail], rank, n + 1 - rank)
    return float(low), float(high)
