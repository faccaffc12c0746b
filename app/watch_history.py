"""How a watched stream came to stand where it does, in few enough rows for a chart."""

from collections import deque
from dataclasses import dataclass, fields

import numpy as np

from ood.monitoring.monitor import Monitor

_ROWS = 2_000
_THRESHOLDS = 64
_RECENT = 500


@dataclass(frozen=True)
class History:
    """M rows: one after every so many images and answers, the last one for where it stands now.

    M is at most 2,001, 1 before the first image; T is at most 64, evenly among all K thresholds.

    Attributes:
        items: (M,) images so far; several rows may have the same while answers come.
        deployed: (M,) threshold in force.
        proposed: (M,) what the rule that chooses would deploy.
        certified: (M,) largest threshold whose misses are certified; NaN where none is.
        flagged_share: (M,) of the last 500 images; NaN before the first.
        audit_rate: (M,) probability of being asked about an accepted image.
        asked: (M,) images asked about so far.
        answered: (M,) answers so far.
        settled: (M,) images before the first that waits.
        misses: (M,) code of `State` of the deployed threshold.
        false_alarms: (M,) the same.
        log_drift: (M,) natural logarithm of the wealth that bets against exchangeability.
        log_violation: (M, T) of the wealth that bets on more misses than the limit.
        log_certificate: (M, T) of the wealth that bets on fewer.
        needed: (M, 2, T) what these two must reach.
        prices: (M, T) of the market, each with those of the thresholds up to the next; sum 1. NaN
            where no market chooses.
        thresholds: (T,) ascending.
    """

    items: np.ndarray
    deployed: np.ndarray
    proposed: np.ndarray
    certified: np.ndarray
    flagged_share: np.ndarray
    audit_rate: np.ndarray
    asked: np.ndarray
    answered: np.ndarray
    settled: np.ndarray
    misses: np.ndarray
    false_alarms: np.ndarray
    log_drift: np.ndarray
    log_violation: np.ndarray
    log_certificate: np.ndarray
    needed: np.ndarray
    prices: np.ndarray
    thresholds: np.ndarray

    def __len__(self) -> int:
        return len(self.items)


class HistoryRecorder:
    """Takes a row after every event; when there are too many, after every second one, and so on.

    What it has depends on the events alone, so that a replay has the same.
    """

    def __init__(self, monitor: Monitor) -> None:
        """Before the first event of this monitor, which it looks at after each."""
        self._monitor = monitor
        k = len(monitor.thresholds)
        self._columns = np.unique(np.linspace(0, k - 1, _THRESHOLDS).round().astype(int))
        self._rows: list[dict[str, np.ndarray]] = []
        self._flags: deque[bool] = deque(maxlen=_RECENT)
        self._events, self._stride = 0, 1

    def after_item(self, flagged: bool) -> None:
        """Look at what an image changed."""
        self._flags.append(flagged)
        self.after_answer()

    def after_answer(self) -> None:
        """Look at what an answer changed."""
        self._events += 1
        if self._events % self._stride:
            return
        self._rows.append(self._row())
        if len(self._rows) >= _ROWS:
            self._rows = self._rows[1::2]
            self._stride *= 2

    def history(self) -> History:
        """So far."""
        rows = [*self._rows, self._row()]
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        return History(**columns, thresholds=self._monitor.thresholds[self._columns])

    def _row(self) -> dict[str, np.ndarray]:
        report, columns = self._monitor.report(), self._columns
        misses = report.misses
        prices = np.full(len(columns), np.nan)
        if len(report.prices):
            prices = np.add.reduceat(report.prices, columns)
        share = sum(self._flags) / len(self._flags) if self._flags else np.nan
        exact = {
            "items": report.items, "deployed": report.deployed, "proposed": report.proposed,
            "certified": report.certified, "flagged_share": share,
            "audit_rate": report.audit_rate, "asked": report.asked, "answered": report.answered,
            "settled": report.settled, "misses": int(misses.state),
            "false_alarms": int(report.false_alarms.state), "log_drift": report.log_drift,
        }  # fmt: skip
        # A chart shows no more digits, and there are many of these.
        drawn = {
            "log_violation": misses.log_violation[columns],
            "log_certificate": misses.log_certificate[columns],
            "needed": misses.needed[:, columns], "prices": prices,
        }  # fmt: skip
        return {name: np.array(value) for name, value in exact.items()} | {
            name: value.astype(np.float32) for name, value in drawn.items()
        }

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as arrays that may be stored."""
        columns = vars(self.history())
        kept = {name: columns[name][:-1] for name in columns if name != "thresholds"}
        return kept | {
            "recent": np.array(self._flags, bool),
            "numbers": np.array([self._events, self._stride]),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a stored state."""
        names = [field.name for field in fields(History) if field.name != "thresholds"]
        self._rows = [
            {name: state[name][row].copy() for name in names} for row in range(len(state["items"]))
        ]
        self._flags = deque(state["recent"].tolist(), _RECENT)
        self._events, self._stride = state["numbers"].tolist()
