"""What an operator wants of a monitor."""

from dataclasses import dataclass
from enum import StrEnum


class Strategy(StrEnum):
    """Who chooses the threshold; evidence is gathered in the same way for all of them."""

    MARKET = "market"
    CERTIFIED = "market, certified only"
    CONSTANT_PRODUCT = "constant-product market"
    FIXED = "fixed threshold"
    NOT_REJECTED = "largest not rejected"
    QUANTILE_TRACKING = "quantile tracking"
    DTACI = "DtACI"


@dataclass(frozen=True)
class Settings:
    """Fixed for the life of a stream.

    Attributes:
        strategy: who chooses the threshold.
        miss_limit: share of unknown images accepted that must not be exceeded.
        miss_target: share of unknown images accepted that the choosing aims at; below the limit,
            for what lies at the limit is never certified.
        false_alarm_limit: share of known images flagged that must not be exceeded.
        error: of each promise alone: probability that a false alarm is ever raised, about misses,
            about false alarms or about drift; that a threshold is ever certified falsely.
        label_error: share of the operator's answers that may be wrong, see `TestedThresholds`.
        start_level: share of calibration images that the first threshold flags.
        thresholds: about how many are candidates.
        audit_floor: least probability of being asked about an accepted image.
        audit_ceiling: largest one.
        budget: labels asked for in any 1,000 consecutive images, at most.
        seed: of the coins that choose audits.

    Raises:
        ValueError: when a share is not in (0, 1), the target not below the limit, or the seed is
            too large.
    """

    strategy: Strategy = Strategy.MARKET
    miss_limit: float = 0.1
    miss_target: float = 0.08
    false_alarm_limit: float = 0.1
    error: float = 0.05
    label_error: float = 0.0
    start_level: float = 0.05
    thresholds: int = 400
    audit_floor: float = 0.05
    audit_ceiling: float = 0.3
    budget: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        shares = {
            "limit of misses": self.miss_limit, "target of misses": self.miss_target,
            "limit of false alarms": self.false_alarm_limit, "error": self.error,
            "share flagged at start": self.start_level,
        }  # fmt: skip
        for name, share in shares.items():
            if not 0 < share < 1:
                raise ValueError(f"The {name} is {share:g}; it must lie in (0, 1).")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"The seed is {self.seed}; it must be from 0 to below 2^63.")
        if self.miss_target >= self.miss_limit:
            raise ValueError(
                f"The target of misses, {self.miss_target:g}, must be below their limit, "
                f"{self.miss_limit:g}."
            )
