"""Strategies on one scenario, run to its end: what each lets through, and what it asks for."""

from dataclasses import dataclass

import numpy as np

from app.watch_playing import ANSWER_DELAY
from ood.monitoring.monitor import Monitor
from ood.monitoring.payoffs import Answer
from ood.monitoring.report import Alarm
from ood.monitoring.settings import Settings
from ood.monitoring.thresholds import State

RECENT = 500


@dataclass(frozen=True)
class Outcome:
    """Of one strategy; N images.

    Attributes:
        settings: that it ran with.
        thresholds: (N,) in force when each image came.
        flagged: (N,) bool.
        missed: (N,) share of the unknown ones among the last 500 images that was accepted; NaN
            where there were none.
        asked: labels asked for.
        certified_at: image at which the deployed threshold was first certified; 0 for never.
        alarms: in order.
    """

    settings: Settings
    thresholds: np.ndarray
    flagged: np.ndarray
    missed: np.ndarray
    asked: int
    certified_at: int
    alarms: tuple[Alarm, ...]


def run_to_end(
    settings: Settings, calibration: np.ndarray, scores: np.ndarray, unknown: np.ndarray
) -> Outcome:
    """Watch a whole recording, each question answered truly 40 images later.

    Args:
        settings: of the monitor.
        calibration: (n,) scores of held-out known images.
        scores: (N,) of the recording's images.
        unknown: (N,) bool, what they are.
    """
    monitor = Monitor(settings, calibration)
    thresholds, flagged = np.empty(len(scores)), np.empty(len(scores), bool)
    waiting: list[int] = []
    certified_at = 0
    for row, score in enumerate(scores):
        decided = monitor.decide(float(score))
        thresholds[row], flagged[row] = decided.threshold, decided.flagged
        if decided.asked:
            waiting.append(decided.item)
        while waiting and waiting[0] <= decided.item - ANSWER_DELAY:
            item = waiting.pop(0)
            monitor.answer(item, Answer.UNKNOWN if unknown[item - 1] else Answer.KNOWN)
            if not certified_at and monitor.report().misses.state == State.CERTIFIED:
                certified_at = decided.item
    return Outcome(
        settings, thresholds, flagged, missed_share(flagged, unknown), monitor.asked,
        certified_at, tuple(monitor.alarms),
    )  # fmt: skip


def missed_share(flagged: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """(N,) share of unknown ones among the last 500 images that is accepted; NaN without any."""
    missed, there = np.cumsum(unknown & ~flagged), np.cumsum(unknown)
    missed[RECENT:] -= missed[:-RECENT].copy()
    there[RECENT:] -= there[:-RECENT].copy()
    return np.divide(missed, there, out=np.full(len(unknown), np.nan), where=there > 0)
