"""One record per batch of a watched stream: what a program reads of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.records import Record
from app.watch_alarms import alarm_record
from ood.monitoring.report import Alarm, Report, RiskReport
from ood.monitoring.thresholds import State

if TYPE_CHECKING:
    from app.watch_folder import Batch

_WORDS = {
    State.UNPROVEN: "not proven", State.CERTIFIED: "certified", State.VIOLATED: "violated"
}  # fmt: skip


def summary(report: Report) -> Record:
    """Where a stream stands, in plain values; null where there is none."""
    return {
        "items": report.items,
        "flagged": report.flagged,
        "asked": report.asked,
        "answered": report.answered,
        "waiting": report.asked - report.answered,
        "threshold": report.deployed,
        "proposed": _number(report.proposed),
        "certified": _number(report.certified),
        "misses": _risk(report.misses),
        "false_alarms": _risk(report.false_alarms),
        "audit_rate": report.audit_rate,
        "drift": report.log_drift,
    }


def batch_record(
    stream: str, report: Report, batch: "Batch", alarms: Sequence[Alarm], problems: Sequence[str]
) -> Record:
    """Where a stream stands after a batch, and what came with it.

    Args:
        stream: its name.
        report: after the batch.
        batch: what came.
        alarms: raised since the last record.
        problems: of alarms that could not be sent.
    """
    return {"stream": stream} | summary(report) | {
        "batch": {
            "items": len(batch.decided),
            "flagged": sum(one.flagged for one in batch.decided),
            "asked": sum(one.asked for one in batch.decided),
            "passed_over": batch.passed_over,
            "refused": [{"file": file.name, "reason": file.reason} for file in batch.refused],
        },
        "alarms": [alarm_record(alarm) for alarm in alarms],
        "problems": list(problems),
    }  # fmt: skip


def _risk(risk: RiskReport) -> dict[str, Any]:
    return {"state": _WORDS[risk.state], "since": risk.since or None}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
