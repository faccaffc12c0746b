"""From p-values to verdicts with a stated error rate."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ood.conditional import METHODS
from ood.conformal import largest_rank, rank_interval

UNKNOWN_SHARE = 0.2


class Verdict(StrEnum):
    """What is said of an image."""

    KNOWN = "known"
    UNSURE = "unsure"
    UNKNOWN = "unknown"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Rule:
    """What error rate is asked for.

    Attributes:
        level: share of known images that may be flagged.
        by_class: whether it shall hold within each predicted class, not only over all of them.
        method: of `conditional.METHODS`, by which it holds with 95% confidence for this very
            calibration set; "" to hold on average over calibration sets.
    """

    level: float
    by_class: bool = False
    method: str = ""


@dataclass(frozen=True)
class Decision:
    """What is said of one image, and how often it would be said wrongly.

    Attributes:
        verdict: known when p > level; unknown when p <= level / 5; unsure between; undecided
            when the calibration set is too small for any image to be flagged at this level.
        p_value: conformal.
        level: nominal share of known images that are flagged (unsure or unknown).
        realised: 95% interval of that share for this calibration set's size.
        detector: whose p-value it is.
        predicted: index of the class the classifier gives, whatever the verdict.
        calibration_size: how many calibration images the p-value rests on.
    """

    verdict: Verdict
    p_value: float
    level: float
    realised: tuple[float, float]
    detector: str
    predicted: int
    calibration_size: int
    by_class: bool = False
    method: str = ""

    @property
    def flagged(self) -> bool:
        """Whether the image is said to be unlike the known classes, or perhaps so."""
        return self.verdict in (Verdict.UNSURE, Verdict.UNKNOWN)


def decide(
    p_values: np.ndarray, predicted: np.ndarray, *, level: float,
    calibration_size: int | np.ndarray, detector: str, by_class: bool = False, method: str = "",
) -> list[Decision]:  # fmt: skip
    """One decision for each of N p-values.

    Args:
        p_values: (N,) conformal.
        predicted: (N,) int, the classifier's classes.
        level: share of known images that may be flagged.
        calibration_size: of all images, or (N,) of each one's category.
        detector: whose p-values they are.
        by_class: whether they were taken among calibration images of the predicted class.
        method: of `conditional.METHODS` by which they were made to hold for this calibration set;
            "" for plain conformal p-values.

    Raises:
        ValueError: when the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"The level is {level}; it must lie between 0 and 1.")
    sizes = np.broadcast_to(calibration_size, p_values.shape).tolist()
    ranks = {n: flagging_rank(level, n, method) for n in set(sizes)}
    realised = {n: rank_interval(rank, n) for n, rank in ranks.items()}
    return [
        Decision(
            verdict=_verdict(float(p), level) if ranks[n] else Verdict.UNDECIDED,
            p_value=float(p),
            level=level,
            realised=realised[n],
            detector=detector,
            predicted=int(c),
            calibration_size=n,
            by_class=by_class,
            method=method,
        )
        for p, c, n in zip(p_values, predicted, sizes, strict=True)
    ]


def flagging_rank(level: float, calibration_size: int, method: str = "") -> int:
    """An image is flagged when fewer calibration images than this look at least as odd.

    0 where so few calibration images can flag nothing at this level.
    """
    if not method:
        return largest_rank(level, calibration_size)
    return int((METHODS[method](calibration_size) <= level).sum())


def can_be_unknown(rule: Rule, calibration_size: int) -> bool:
    """Whether any image at all could be called unknown, however odd it is.

    Args:
        rule: what is asked for.
        calibration_size: of all images; by class, of the category in question.
    """
    smallest = 1 / (calibration_size + 1)
    if rule.method:
        smallest = float(METHODS[rule.method](calibration_size)[0])
    return _verdict(smallest, rule.level) is Verdict.UNKNOWN


def _verdict(p_value: float, level: float) -> Verdict:
    if p_value <= level * UNKNOWN_SHARE:
        return Verdict.UNKNOWN
    return Verdict.UNSURE if p_value <= level else Verdict.KNOWN
