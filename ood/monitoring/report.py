"""What a monitor says: alarms as they are raised, and where it stands."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ood.monitoring.thresholds import State


class Kind(StrEnum):
    """What an alarm is about."""

    MISSES = "misses"
    FALSE_ALARMS = "false alarms"
    DRIFT = "drift"


@dataclass(frozen=True)
class Alarm:
    """The deployed threshold breaks a limit, or images come differently than before.

    Attributes:
        kind: about what.
        item: the last item (from 1) whose answer counted when it was raised.
        since: the item since which it is thought to be so; an estimate.
        threshold: that was deployed.
    """

    kind: Kind
    item: int
    since: int
    threshold: float


@dataclass(frozen=True)
class RiskReport:
    """Of one risk; K thresholds.

    Attributes:
        state: of the deployed threshold.
        since: item since which it is thought violated, or at which it was certified; 0 if neither.
        states: (K,) codes of `State`.
        log_violation: (K,) natural logarithm of the wealth that bets on more than the limit.
        log_certificate: (K,) of the wealth that bets on less.
        needed: (2, K) what these logarithms must reach.
    """

    state: State
    since: int
    states: np.ndarray
    log_violation: np.ndarray
    log_certificate: np.ndarray
    needed: np.ndarray


@dataclass(frozen=True)
class Report:
    """Where a monitor stands after an item.

    Attributes:
        items: images so far.
        settled: of those, images before the first that still waits for its answer.
        flagged: images flagged so far.
        asked: images asked about so far.
        answered: answers given.
        deployed: the threshold in force.
        proposed: what the rule that chooses would deploy.
        certified: the largest threshold whose misses are certified; NaN where none is.
        audit_rate: probability that the next image is asked about if it is accepted.
        misses: see `RiskReport`.
        false_alarms: see `RiskReport`.
        prices: (K,) of the market; none where no market chooses.
        log_drift: natural logarithm of the wealth that bets against exchangeability.
    """

    items: int
    settled: int
    flagged: int
    asked: int
    answered: int
    deployed: float
    proposed: float
    certified: float
    audit_rate: float
    misses: RiskReport
    false_alarms: RiskReport
    prices: np.ndarray
    log_drift: float
