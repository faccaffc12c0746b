"""The sequential test of the inbox: the same stream, the same outcome."""

import numpy as np

from app.inbox_contents import Stream
from app.novelty_layer import calibration_features
from app.workspace import Workspace
from ood.clusters import Progress, no_progress
from ood.decision import Rule
from ood.new_class import FlaggedCalibration
from ood.new_class_monitor import NewClassMonitor
from ood.novelty import group_tight

LEVEL = 0.05
FALSE_ALARM = 0.05


def replay(
    workspace: Workspace, stream: Stream, before: NewClassMonitor | None = None,
    progress: Progress = no_progress,
) -> NewClassMonitor:  # fmt: skip
    """The test over everything in the inbox.

    Args:
        workspace: whose inbox it is.
        stream: everything in it.
        before: what an earlier call returned; where the stream goes on from there, only what is
            new is followed.
        progress: called with the share of the work that is done.
    """
    chosen = stream.p_values <= LEVEL
    ids, positions = stream.sha256[chosen].tolist(), stream.inspected_before[chosen]
    features = workspace.novelty_layer.features(stream.vectors)[chosen]
    start = 0
    if before is not None and before.inspected <= stream.inspected:
        start = int(np.searchsorted(positions, before.inspected, side="right"))
    if before is None or tuple(dict.fromkeys(ids[:start])) != before.ids:
        before, start = _start(workspace), 0
    return before.extend(
        ids[start:], features[start:], positions[start:], stream.inspected, progress
    )


def _start(workspace: Workspace) -> NewClassMonitor:
    calibration = FlaggedCalibration.of(
        calibration_features(workspace), workspace.calibration_flagged(Rule(LEVEL))
    )
    return NewClassMonitor.start(calibration, group_tight, FALSE_ALARM)
