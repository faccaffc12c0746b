"""The sequential test of the inbox: the same stream, the same outcome."""

from dataclasses import dataclass

import numpy as np

from app.inbox_contents import Stream
from app.workspace import Workspace
from ood.clusters import Progress, no_progress
from ood.decision import Rule
from ood.new_class import FlaggedCalibration
from ood.new_class_monitor import NewClassMonitor
from ood.novelty import group_tight

LEVEL = 0.05
FALSE_ALARM = 0.05


@dataclass(frozen=True)
class Replayed:
    """The test over a stream, and which passes it was made of.

    Attributes:
        monitor: at the end of the stream.
        passes: (P, 2), see `Stream`.
        ids: (N,) of the items that it has seen.
    """

    monitor: NewClassMonitor
    passes: np.ndarray
    ids: np.ndarray

    def begins(self, stream: Stream) -> bool:
        """Whether the stream goes on from here: nothing of it is gone, nothing in between."""
        return np.array_equal(self.passes, stream.passes[: len(self.passes)]) and np.array_equal(
            self.ids, stream.ids[stream.p_values <= LEVEL][: len(self.ids)]
        )


def replay(
    workspace: Workspace, stream: Stream, before: Replayed | None = None,
    progress: Progress = no_progress,
) -> Replayed:  # fmt: skip
    """The test over everything in the inbox.

    Args:
        workspace: whose inbox it is.
        stream: everything in it.
        before: what an earlier call returned; where the stream goes on from there, only what is
            new is followed.
        progress: called with the share of the work that is done.
    """
    rows = np.flatnonzero(stream.p_values <= LEVEL)
    if before is None or not before.begins(stream):
        before = Replayed(_start(workspace), stream.passes[:0], stream.ids[:0])
    new = rows[len(before.ids) :]
    monitor = before.monitor.extend(
        stream.sha256[new].tolist(),
        workspace.novelty_layer.features(stream.vectors)[new],
        stream.inspected_before[new],
        stream.inspected,
        stream.counted[new],
        progress,
    )
    return Replayed(monitor, stream.passes, stream.ids[rows])


def _start(workspace: Workspace) -> NewClassMonitor:
    calibration = FlaggedCalibration.of(
        calibration_features(workspace), workspace.calibration_flagged(Rule(LEVEL))
    )
    return NewClassMonitor.start(calibration, group_tight, FALSE_ALARM)


def calibration_features(workspace: Workspace) -> np.ndarray:
    """(n, K) unit features of the calibration images."""
    return workspace.novelty_layer.layer.features(workspace.calibration.images.activations)
