"""A monitor that goes through the events of a log, and a state from which it goes on."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from app.watch_contents import settings_to_json
from app.watch_history import HistoryRecorder
from app.watch_log import DECISION, EventKind
from ood.monitoring.monitor import Decided, Monitor
from ood.monitoring.payoffs import Answer
from ood.monitoring.settings import Settings

_MONITOR, _HISTORY = "monitor.", "history."
_VERSION, _MADE_FOR = "version", "made_for"
# Of what a monitor and its history store: to be raised when that, or what it means, changes.
_STATE_VERSION = 2
# Another processor, or version of NumPy, rounds the last digits otherwise.
_ROUNDING = 1e-9
_ROUNDED = ("threshold", "probability")
WHY_OTHER = (
    "It was made by another version of Kindred or of NumPy, or on another processor, which may "
    "round otherwise; or it was changed."
)


class OtherDecision(ValueError):
    """An event that a replay decides otherwise than it was decided."""


class Replay:
    """One stream up to some event.

    Attributes:
        settings: of the monitor.
        calibration: (n,) scores of held-out known images.
        monitor: after the last event.
        recorder: of its history.
        event: the last one's number; 0 before the first.
        snapshot_event: that a stored state was taken after.
    """

    def __init__(self, settings: Settings, calibration: np.ndarray) -> None:
        """Before the first event.

        Raises:
            ValueError: see `Monitor`.
        """
        self.settings, self.calibration = settings, calibration
        self.monitor = Monitor(settings, calibration)
        self.recorder = HistoryRecorder(self.monitor)
        self.event = self.snapshot_event = 0

    def decide(self, score: float) -> Decided:
        """See `Monitor.decide`."""
        decided = self.monitor.decide(score)
        self.recorder.after_item(decided.flagged)
        return decided

    def answer(self, item: int, answer: Answer) -> bool:
        """See `Monitor.answer`."""
        taken = self.monitor.answer(item, answer)
        if taken:
            self.recorder.after_answer()
        return taken

    def repeat(self, event: Mapping[str, Any], *, exact: bool = False) -> None:
        """Go through one more event of the log, by the columns of its table.

        Args:
            event: the next one.
            exact: a threshold or a probability must be the same in every bit; else they may differ
                as other processors round.

        Raises:
            OtherDecision: when it comes to something else than was decided then.
        """
        if event["kind"] == EventKind.ARRIVAL:
            decided = self.decide(event["score"])
            if any(
                not _same(name, getattr(decided, name), event[name], exact) for name in DECISION
            ):
                raise OtherDecision(
                    f"Item {event['item']} replays to {decided}; recorded are "
                    + ", ".join(f"{name}={event[name]}" for name in DECISION)
                    + f". {WHY_OTHER}"
                )
        elif event["kind"] == EventKind.ANSWER:
            item, answer = event["item"], Answer(event["answer"])
            if not self.answer(item, answer):
                raise OtherDecision(f"Item {item} is answered twice.")
        self.event = event["id"]

    def state(self) -> bytes:
        """All of it but settings and calibration scores, as safetensors."""
        parts = {_MONITOR: self.monitor.state(), _HISTORY: self.recorder.state()}
        return save(
            self._made_for()
            | {
                f"{part}{name}": np.array(array, order="C")
                for part, arrays in parts.items()
                for name, array in arrays.items()
            }
        )

    def _made_for(self) -> dict[str, np.ndarray]:
        """What a state belongs to: a version, and settings with the thresholds made of them."""
        digest = hashlib.sha256(settings_to_json(self.settings).encode())
        digest.update(self.monitor.thresholds.tobytes())
        return {
            _VERSION: np.array([_STATE_VERSION]),
            _MADE_FOR: np.frombuffer(digest.digest(), np.uint8),
        }

    def restore(self, event: int, state: bytes) -> bool:
        """Take over the state that was stored after an event; False where it cannot be used."""
        try:
            arrays = load(state)
            if any(not np.array_equal(arrays[k], own) for k, own in self._made_for().items()):
                return False
            monitor = Monitor.restore(self.settings, self.calibration, _part(arrays, _MONITOR))
            recorder = HistoryRecorder(monitor)
            recorder.restore(_part(arrays, _HISTORY))
        except (SafetensorError, ValueError, KeyError, TypeError, IndexError):
            return False  # of another version, or damaged: the log says it all again
        self.monitor, self.recorder = monitor, recorder
        self.event = self.snapshot_event = event
        return True


def state_digest(monitor: Monitor) -> str:
    """Sha256, in hex, of every bit of a monitor's state."""
    digest = hashlib.sha256()
    for name, array in sorted(monitor.state().items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.array(array, order="C").tobytes())
    return digest.hexdigest()


def _same(name: str, replayed: float, recorded: float, exact: bool) -> bool:
    if exact or name not in _ROUNDED:
        return replayed == recorded
    return math.isclose(replayed, recorded, rel_tol=_ROUNDING)


def _part(state: dict[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(start): a for key, a in state.items() if key.startswith(start)}
