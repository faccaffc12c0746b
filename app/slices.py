"""Parts of the calibration images that one can ask about: a class, the mistakes, a group."""

from collections.abc import Mapping

import numpy as np

from app.workspace import Workspace
from explain.effects import Slice
from ood.decision import Rule

EVERYTHING = "All calibration images"
LEVEL = 0.05
MISTAKES = "Those it gets wrong"
FLAGGED = "Those flagged as unknown"


def slices(workspace: Workspace, metadata: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Name of a slice to rows of the calibration images; slices without images are left out.

    Args:
        workspace: whose calibration images.
        metadata: of them, as `read_metadata` gives it.
    """
    images = workspace.calibration.images
    labels = np.asarray(images.labels)
    wrong = images.activations.logits.argmax(axis=1) != labels
    members = {EVERYTHING: np.ones(len(labels), bool)}
    members |= {name: labels == number for number, name in enumerate(workspace.classes)}
    members |= {MISTAKES: wrong, FLAGGED: workspace.calibration_flagged(Rule(LEVEL))}
    for column, groups in metadata.items():
        members |= {f"{column}: {group}": groups == group for group in np.unique(groups)}
    return {name: np.flatnonzero(member) for name, member in members.items() if member.any()}


def slice_of(workspace: Workspace, rows: np.ndarray) -> Slice:
    """These calibration images with their labels."""
    images = workspace.calibration.images
    features = np.asarray(images.activations.features[rows])
    return Slice(features, np.asarray(images.labels)[rows])
