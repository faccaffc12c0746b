"""What one labelled item pays at each threshold, and how much may be bet on it."""

from dataclasses import dataclass, fields, replace
from enum import IntEnum, StrEnum
from typing import Self

import numpy as np


class Risk(StrEnum):
    """Which mistake a threshold makes; an item is flagged if its score is above the threshold."""

    MISS = "miss"
    FALSE_ALARM = "false alarm"


class Answer(IntEnum):
    """What the operator said of an item; what he was not asked is not looked at."""

    NOT_ASKED = 0
    KNOWN = 1
    UNKNOWN = 2
    DO_NOT_KNOW = 3


@dataclass(frozen=True)
class AnsweredItems:
    """Consecutive items of a stream, none of which waits for an answer.

    A flagged item (score > deployed) is always asked about; an accepted one with probability
    audit, by a coin that knows nothing of it, whatever its score.

    Attributes:
        scores: (N,) larger = more outlying.
        answers: (N,) int, codes of `Answer`.
        deployed: (N,) the threshold that was deployed when each item came.
        audit: (N,) in (0, 1], the audit probability when each item came; decided before it.
    """

    scores: np.ndarray
    answers: np.ndarray
    deployed: np.ndarray
    audit: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """(N,) one over the probability of being asked; 0 for items that were not asked about."""
        asked = self.answers != Answer.NOT_ASKED
        return np.where(asked, np.where(self.scores > self.deployed, 1.0, 1 / self.audit), 0.0)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})


class Claim(StrEnum):
    """What is to be shown of a risk: that it is above its limit, or that it is below."""

    VIOLATION = "violation"
    CERTIFICATE = "certificate"


def payoffs(
    risk: Risk,
    thresholds: np.ndarray,
    scores: np.ndarray,
    unknown: np.ndarray,
    weights: np.ndarray,
    limit: float,
) -> np.ndarray:
    """Of a bet that the risk is above its limit; the certificate's payoffs are minus these.

    g = weight 1{unknown} (1{score <= threshold} - limit) for misses and
    g = weight 1{known} (1{score > threshold} - limit) for false alarms. Weighted by one over the
    probability of being labelled, its mean is at most 0 exactly where the risk, among unknown
    (known) items, is at most the limit, whatever the share of unknown items (a ratio of two
    expectations made linear; Horvitz and Thompson, JASA 1952, for the weights).

    Args:
        risk: misses among unknown items or false alarms among known ones.
        thresholds: (K,) ascending.
        scores: (...) larger = more outlying.
        unknown: (...) bool labels; where the weight is 0 they do not matter.
        weights: (...) 1 / label probability of labelled items, 0 for the others.
        limit: of the risk, in (0, 1).

    Returns:
        (..., K) float64; 0 where the item is not labelled or does not matter for this risk.
    """
    accepted = np.asarray(scores)[..., None] <= thresholds
    is_miss = risk is Risk.MISS
    mistaken = accepted if is_miss else ~accepted
    moved = np.where(np.asarray(unknown) == is_miss, weights, 0.0)
    return (mistaken - limit) * moved[..., None]


def largest_bets(
    claim: Claim,
    risk: Risk,
    thresholds: np.ndarray,
    deployed: np.ndarray | float,
    audit: np.ndarray | float,
    limit: float,
) -> np.ndarray:
    """Every bet below this keeps the wealth positive, whatever the item turns out to be.

    All of it is known before the item. A bet is lost on one side of the candidate threshold:

    =========== =========== ====================== =======================================
    claim       risk        lost where, and what   label probability there
    =========== =========== ====================== =======================================
    violation   miss        above, limit           1 if candidate >= deployed, else audit
    violation   false alarm at or below, limit     audit, on either side of the deployed
    certificate miss        at or below, 1 - limit audit, on either side of the deployed
    certificate false alarm above, 1 - limit       1 if candidate >= deployed, else audit
    =========== =========== ====================== =======================================

    The least label probability on that side, over what is lost, is the largest bet: above a
    candidate that is not below the deployed threshold all items are flagged; above any other one,
    and below all, there are accepted ones.

    Args:
        claim: violation or certificate.
        risk: misses or false alarms.
        thresholds: (K,) candidates.
        deployed: (...) the threshold by which each item is flagged.
        audit: (...) label probability of accepted items, in (0, 1]; flagged ones have 1.
        limit: of the risk, in (0, 1).

    Returns:
        (..., K) float64.
    """
    lost = limit if claim is Claim.VIOLATION else 1 - limit
    audits = np.asarray(audit, float)[..., None]
    if (claim is Claim.VIOLATION) == (risk is Risk.MISS):
        audits = np.where(thresholds >= np.asarray(deployed)[..., None], 1.0, audits)
    return np.broadcast_to(audits / lost, (*audits.shape[:-1], len(thresholds)))
