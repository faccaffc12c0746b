"""From p-values to verdicts with a stated error rate."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ood.conformal import largest_rank, realised_interval

UNKNOWN_SHARE = 0.2


class Verdict(StrEnum):
    """What is said of an image."""

    KNOWN = "known"
    UNSURE = "unsure"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Decision:
    """What is said of one image, and how often it would be said wrongly.

    Attributes:
        verdict: known when p > level; unknown when p <= level / 5; unsure between.
        p_value: conformal.
        level: nominal share of known images that are flagged (unsure or unknown).
        realised: 95% interval of that share for this calibration set's size.
        detector: whose p-value it is.
        predicted: index of the class the classifier gives, whatever the verdict.
    """

    verdict: Verdict
    p_value: float
    level: float
    realised: tuple[float, float]
    detector: str
    predicted: int

    @property
    def flagged(self) -> bool:
        """Whether the image is not simply known."""
        return self.verdict is not Verdict.KNOWN


def decide(
    p_values: np.ndarray, predicted: np.ndarray, *, level: float, calibration_size: int,
    detector: str,
) -> list[Decision]:  # fmt: skip
    """One decision for each of N p-values.

    Raises:
        ValueError: when the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"The level is {level}; it must lie between 0 and 1.")
    realised = realised_interval(level, calibration_size)
    return [
        Decision(_verdict(float(p), level), float(p), level, realised, detector, int(c))
        for p, c in zip(p_values, predicted, strict=True)
    ]


def can_decide(level: float, calibration_size: int) -> bool:
    """Whether so few calibration images can flag anything at this level."""
    return largest_rank(level, calibration_size) > 0


def _verdict(p_value: float, level: float) -> Verdict:
    if p_value <= level * UNKNOWN_SHARE:
        return Verdict.UNKNOWN
    return Verdict.UNSURE if p_value <= level else Verdict.KNOWN
