"""Conformal p-values: how many normal images look at least this odd."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import beta

from models.bank import CalibrationSet
from ood.detectors.base import Detector


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

    @classmethod
    def fit(cls, detector: Detector, calibration: CalibrationSet) -> Self:
        """Score every held-out image."""
        return cls(np.sort(detector.score(calibration.activations)))

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
        rank = largest_rank(level, len(self))
        return float(self.scores[-rank]) if rank else float("inf")


def largest_rank(level: float, n: int) -> int:
    """floor(level (n + 1)), safe against 0.05 * 20 = 0.9999...; p <= level needs it positive."""
    return int(np.floor(level * (n + 1) * (1 + 1e-12)))


def realised_interval(level: float, n: int, coverage: float = 0.95) -> tuple[float, float]:
    """Where the share of known images flagged at `level` lies, for one calibration set of n.

    Over calibration sets that share is Beta(k, n + 1 - k) with k = floor(level (n + 1))
    (Vovk, 2012, proposition 2); the interval holds `coverage` of it, equal tails.
    """
    rank = largest_rank(level, n)
    if rank == 0:
        return 0.0, 0.0
    if rank > n:
        return 1.0, 1.0
    tail = (1 - coverage) / 2
    low, high = beta.ppf([tail, 1 - tail], rank, n + 1 - rank)
    return float(low), float(high)
