"""Where the classifier does badly: classes, groups and weak spots; and groups that make it so."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.audit import Audit
from app.records import Record
from app.workspace import Workspace
from explain.effects import group_alike, group_effects
from explain.subgroups import Subgroups, find_worse_subgroups, rare_classes

SMALLEST_SPOT = 10


@dataclass(frozen=True)
class WeakSpots:
    """Groups of calibration images that are alike to the model, within each answer.

    Attributes:
        groups: (n,) of each calibration image.
        found: how well each group is classified.
        worse: groups of ten or more that do worse than the rest beyond chance, the worst first.
    """

    groups: np.ndarray
    found: Subgroups
    worse: np.ndarray


def predicted_classes(workspace: Workspace) -> np.ndarray:
    """(n,) the network's answers for the calibration images."""
    return np.asarray(workspace.calibration.images.activations.logits).argmax(axis=1)


def find_weak_spots(workspace: Workspace) -> WeakSpots:
    """Cluster by the answer, not by the label: groups must not be made by what was right."""
    images, predicted = workspace.calibration.images, predicted_classes(workspace)
    groups = group_alike(np.asarray(images.activations.features), predicted)
    found = find_worse_subgroups(groups, np.asarray(images.labels), predicted)
    worse = np.flatnonzero(found.worse & (found.counts >= SMALLEST_SPOT))
    return WeakSpots(groups, found, worse[np.argsort(found.accuracy[worse], kind="stable")])


def group_records(workspace: Workspace, names: Sequence[str], groups: np.ndarray) -> list[Record]:
    """How well each group of calibration images is classified.

    Args:
        workspace: whose calibration images.
        names: G of them.
        groups: (n,) the number of each calibration image's group.
    """
    labels = np.asarray(workspace.calibration.images.labels)
    found = find_worse_subgroups(groups, labels, predicted_classes(workspace), len(names))
    shares = _decided_by_one(workspace, groups, len(names))
    return [
        {
            "group": name,
            "images": int(found.counts[number]),
            "accuracy": _number(found.accuracy[number]),
            "low": float(found.low[number]),
            "high": float(found.high[number]),
            "decided_by_one_image": _number(shares[number]),
            "worse": bool(found.worse[number]),
        }
        for number, name in enumerate(names)
    ]


def class_records(workspace: Workspace) -> list[Record]:
    """`group_records` of the classes, with their training images."""
    names, learned = workspace.classes, np.asarray(workspace.bank.images.labels)
    counts = np.bincount(learned, minlength=len(names))
    rare = set(rare_classes(learned, len(names)).tolist())
    held_out = np.asarray(workspace.calibration.images.labels)
    return [
        record | {"training_images": int(counts[number]), "rare": number in rare}
        for number, record in enumerate(group_records(workspace, names, held_out))
    ]


def spot_records(workspace: Workspace) -> list[Record]:
    """One record a weak spot, the worst first."""
    spots, images = find_weak_spots(workspace), workspace.calibration.images
    predicted = predicted_classes(workspace)
    records: list[Record] = []
    for group in spots.worse:
        rows = np.flatnonzero(spots.groups == group)
        records.append(
            {
                "answer": workspace.classes[predicted[rows[0]]],
                "images": len(rows),
                "accuracy": float(spots.found.accuracy[group]),
                "p_value": float(spots.found.p_values[group]),
                "files": [images.name(int(row)) for row in rows],
            }
        )
    return records


def hurting_records(workspace: Workspace, audit: Audit) -> list[Record]:
    """Groups of alike training images by what leaving each out does, the most hurtful first."""
    return [
        {
            "class": workspace.classes[group.label],
            "images": len(group.rows),
            "predicted_loss_without": group.predicted,
            "ids": [workspace.training_ids[row] for row in group.rows],
        }
        for group in group_effects(
            -audit.harm, audit.groups, np.asarray(workspace.bank.images.labels)
        )
    ]


def _decided_by_one(workspace: Workspace, groups: np.ndarray, count: int) -> np.ndarray:
    """(G,) shares of images that one training image decides; NaN where none was asked about."""
    flips = workspace.single_flips
    if flips is None:
        return np.full(count, np.nan)
    asked = np.bincount(groups[flips.asked], minlength=count)
    found = np.bincount(groups[flips.asked[flips.by >= 0]], minlength=count)
    return np.where(asked > 0, found / np.maximum(asked, 1), np.nan)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
