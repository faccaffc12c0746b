"""Whether a ball in feature space fills faster than known images alone could fill it."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.special import logsumexp
from scipy.stats import beta

from models.bank import normalise_rows

_HELD = 0.9
_ALTERNATIVES = 16
_CHUNK = 4_096


@dataclass(frozen=True)
class Ball:
    """A place among unit features.

    Attributes:
        centre: (D,) float32, the mean of the unit features that it was made of.
        radius: Euclidean, from 0 (made of copies) to 2.
    """

    centre: np.ndarray
    radius: float

    @classmethod
    def around(cls, features: np.ndarray) -> Self:
        """The smallest ball around the mean of (m, D) unit features that holds 90% of them."""
        centre = features.mean(axis=0)
        distances = _distances(features, centre)
        return cls(centre, float(np.quantile(distances, _HELD, method="inverted_cdf")))

    def holds(self, features: np.ndarray) -> np.ndarray:
        """(N, D) unit features to (N,) bool; what lies on the rim is inside."""
        return _distances(features, self.centre) <= self.radius


@dataclass(frozen=True)
class FlaggedCalibration:
    """Of n calibration images, those that the decision flags.

    Attributes:
        features: (m, D) of the m flagged ones, of unit length.
        size: n, flagged or not.
    """

    features: np.ndarray
    size: int

    @classmethod
    def of(cls, features: np.ndarray, flagged: np.ndarray) -> Self:
        """Of (n, D) features of any length, and (n,) bool: flagged at the stream's level.

        Raises:
            ValueError: when lengths differ, or there are no calibration images.
        """
        if len(features) != len(flagged) or len(features) == 0:
            raise ValueError(
                f"{len(features)} features and {len(flagged)} decisions: give one of each for "
                "every calibration image, and at least one image."
            )
        return cls(normalise_rows(features[flagged]), len(features))

    def rate_bound(self, ball: Ball, error: float) -> float:
        """The share of known images that are flagged and within the ball is at most this.

        Except with probability `error` over calibration sets, for a ball that depends on this one
        by the threshold only. The product of two bounds at half the error: of the share that is
        flagged, which holds when the threshold comes from these very images, as the conformal one
        does; and of the share of those within the ball, for given the threshold the calibration
        images beyond it are a sample of what lies there.
        """
        flagged, inside = len(self.features), int(ball.holds(self.features).sum())
        share = clopper_pearson_upper(flagged, self.size, error / 2)
        return share * clopper_pearson_upper(inside, flagged, error / 2)


def clopper_pearson_upper(count: int, size: int, error: float) -> float:
    """Upper bound of a binomial rate (Clopper and Pearson, Biometrika 1934), never 0.

    Args:
        count: successes.
        size: trials, at least one.
        error: probability that the rate is larger than the bound.
    """
    return 1.0 if count == size else float(beta.isf(error, count + 1, size - count))


def log_e_values(hits: np.ndarray, items: np.ndarray, rate: float) -> np.ndarray:
    """Evidence that hits come at more than `rate`, from how many came among how many items.

    A mixture of betting wealths, prod (1 + l (B - rate)) over items with B = 1 for a hit and else
    0; each l = (q - rate) / (rate (1 - rate)) is best if hits come at rate q (Kelly, Bell System
    Technical Journal 1956; the capital process of Waudby-Smith and Ramdas, JRSS B 2024, with bets
    that stay). 16 alternatives q lie evenly, in logarithm, between `rate` and 1. Before each item
    nobody expects to gain while the true rate is at most `rate`, so P(it ever reaches log a) <=
    1 / a (Ville, 1939). A run of misses is one multiplication.

    Args:
        hits: (N,) int.
        items: (N,) int, hits and misses.
        rate: above 0; at 1 nothing is evidence.

    Returns:
        (N,) float64, natural logarithm of the e-value; it never overflows.
    """
    if rate >= 1:
        return np.zeros(len(hits))
    alternatives = rate ** (1 - (np.arange(_ALTERNATIVES) + 0.5) / _ALTERNATIVES)
    bets = (alternatives - rate) / (rate * (1 - rate))
    wealth = np.multiply.outer(hits, np.log1p(bets * (1 - rate)))
    wealth += np.multiply.outer(items - hits, np.log1p(-bets * rate))
    return logsumexp(wealth, axis=1) - np.log(_ALTERNATIVES)


def share_of_error(total: float, number: int) -> float:
    """What proposal 1, 2, ... may spend of a total error; over all numbers it adds up to it."""
    return total * 6 / (np.pi * number) ** 2


@dataclass(frozen=True)
class Proposal:
    """A ball under test, or confirmed.

    Under the null hypothesis images to come are known ones, exchangeable with the calibration
    images. P(it is ever confirmed) <= `error`: half for the bound of the rate, half for the bets.

    Attributes:
        ball: made of flagged images up to and including image `since`, and of nothing else.
        made_of: how many images it was made of.
        since: how many images had been inspected before the first one that counts.
        rate: `FlaggedCalibration.rate_bound` of the ball at half the error.
        error: probability of ever being confirmed falsely.
        items: images inspected after `since`; until it was confirmed, if it was.
        hits: those of them that are flagged, within the ball and no copies of earlier ones.
        confirmed_at: how many images had been inspected when it was confirmed; None if it is not.
    """

    ball: Ball
    made_of: int
    since: int
    rate: float
    error: float
    items: int = 0
    hits: int = 0
    confirmed_at: int | None = None

    @property
    def log_e_value(self) -> float:
        """Natural logarithm of the evidence, see `log_e_values`; 0 where nothing is known yet."""
        return float(log_e_values(np.array([self.hits]), np.array([self.items]), self.rate)[0])

    def follow(self, features: np.ndarray, positions: np.ndarray, inspected: int) -> Self:
        """After more images, stopping at the one that confirms it.

        Args:
            features: (F, D) of F flagged images, of unit length, no copies.
            positions: (F,) int, ascending: which of all inspected images each is, from 1.
            inspected: how many images have been inspected now, flagged or not.
        """
        if self.confirmed_at is not None:
            return self
        at = positions[self.ball.holds(features)]
        hits = self.hits + 1 + np.arange(len(at))
        # Misses only lose, so that only hits can confirm.
        reached = log_e_values(hits, at - self.since, self.rate) >= np.log(2 / self.error)
        if not reached.any():
            return replace(self, items=inspected - self.since, hits=self.hits + len(at))
        first = int(np.argmax(reached))
        confirmed_at = int(at[first])
        return replace(
            self, items=confirmed_at - self.since, hits=int(hits[first]), confirmed_at=confirmed_at
        )


def _distances(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(N,) by differences: those of copies are equal, whatever else is in the batch."""
    parts = [
        np.square(features[start : start + _CHUNK] - centre).sum(axis=1)
        for start in range(0, len(features), _CHUNK)
    ]
    return np.sqrt(np.concatenate([np.empty(0, np.float32), *parts]))
