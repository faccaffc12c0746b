"""Whether the images that are not flagged are still like the calibration images."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ood.conformal import ConformalCalibration

ALARM = 20.0
JUMPER_START = [1 / 3] * 3
_BETS = (-1.0, 0.0, 1.0)
_JUMP = 0.01


@dataclass(frozen=True)
class Exchangeability:
    """The wealth of someone who bets that the images are unlike the calibration images.

    Attributes:
        wealth: (M,) after each image, starting from 1. Nobody can expect to gain while images and
            calibration images are exchangeable, and P(it ever reaches a) <= 1/a (Ville, 1939).
    """

    wealth: np.ndarray

    @property
    def images(self) -> int:
        """How many images were bet on."""
        return len(self.wealth)

    @property
    def alarm(self) -> bool:
        """Whether it ever reached 20; by chance in at most 5% of batches."""
        return bool((self.wealth >= ALARM).any())


def check_exchangeability(
    scores: np.ndarray, calibration: np.ndarray, level: float
) -> Exchangeability:
    """Bet on a batch's images in upload order, skipping those that are flagged at `level`.

    Both sides are cut strictly below the threshold: the calibration image at it is always the
    largest of those left, so it is not exchangeable with the images.

    Args:
        scores: (N,) of the batch, in upload order.
        calibration: (n,) scores, ascending.
        level: share of known images that is flagged.
    """
    threshold = ConformalCalibration(calibration).threshold(level)
    return Exchangeability(
        _wealth(_growing_p_values(scores[scores < threshold], calibration[calibration < threshold]))
    )


def _growing_p_values(scores: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    """(M,) ranks of each image among calibration, the images before it and itself.

    Independent and uniform when all are exchangeable (Vovk, Gammerman and Shafer, 2005), ties
    being broken by chance, the same in every run.
    """
    larger = len(calibration) - np.searchsorted(calibration, scores, side="right")
    ties = len(calibration) - np.searchsorted(calibration, scores, side="left") - larger
    before: list[float] = []
    for image, score in enumerate(scores.tolist()):
        right = bisect_right(before, score)
        larger[image] += image - right
        ties[image] += 1 + right - bisect_left(before, score)
        insort(before, score)
    chance = np.random.default_rng(0).uniform(size=len(scores))
    return (larger + chance * ties) / (len(calibration) + 1 + np.arange(len(scores)))


def _wealth(p_values: np.ndarray) -> np.ndarray:
    """(M,) wealth of the Simple Jumper betting on (M,) uniform p-values."""
    shares, path = JUMPER_START, []
    for p in p_values.tolist():
        shares = jump(shares, p)
        path.append(sum(shares))
    return np.array(path)


def jump(shares: Sequence[float], p: float) -> list[float]:
    """The wealth of the Simple Jumper's three bettors after one more uniform p-value.

    The first bets on small p, the second on nothing, the third on large p; they start from a third
    each, and 1% is dealt anew before each bet (Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and
    Gammerman, COPA 2021, algorithm 1).
    """
    wealth = sum(shares)
    return [
        ((1 - _JUMP) * share + _JUMP * wealth / 3) * (1 + bet * (p - 0.5))
        for bet, share in zip(_BETS, shares, strict=True)
    ]
