"""Thresholds in a unit that people know: the share of normal images that each would flag."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from ood.monitoring.grid import threshold_grid
from ood.monitoring.settings import Settings

_TICKS = (1.0, 0.25, 0.1, 0.05, 0.02, 0.01, 0.0)


@dataclass(frozen=True)
class Scale:
    """K thresholds and n scores of held-out normal images.

    Attributes:
        thresholds: (K,) ascending.
        calibration: (n,) ascending.
    """

    thresholds: np.ndarray
    calibration: np.ndarray

    @classmethod
    def of(cls, settings: Settings, calibration: np.ndarray) -> Self:
        """That of a monitor of these settings and (n,) calibration scores."""
        return cls(threshold_grid(calibration, settings.thresholds), np.sort(calibration))

    def place(self, threshold: float) -> int:
        """Index of a threshold."""
        return int(np.abs(self.thresholds - threshold).argmin())

    def ranks(self, thresholds: np.ndarray) -> np.ndarray:
        """Where thresholds, of any shape, lie among the K, from 0 to K - 1; NaN stays NaN."""
        return np.interp(thresholds, self.thresholds, np.arange(len(self.thresholds)))

    def normal_share(self, threshold: float) -> float:
        """Share of the normal images that score above a threshold."""
        above = len(self.calibration) - np.searchsorted(self.calibration, threshold, "right")
        return float(above / len(self.calibration))

    def ticks(self) -> tuple[list[float], list[str]]:
        """Ranks and labels for an axis of ranks; shares that the grid does not tell apart once."""
        ranks: dict[float, str] = {}
        for share in _TICKS:
            at = np.quantile(self.calibration, 1 - share, method="inverted_cdf")
            rank = 0.0 if share == 1 else float(self.ranks(at))
            ranks.setdefault(rank, f"{share:.0%}")
        return list(ranks), list(ranks.values())
