"""What a decision would be had some training images been left out, or labelled otherwise."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from app.workspace import Workspace
from explain.head import extend
from ood.temperature import probabilities


@dataclass(frozen=True)
class Edit:
    """A change of the training set.

    Attributes:
        removed: rows of the Bank that are left out, in the order in which they were chosen.
        relabelled: (row, other label) of images that stay.
    """

    removed: tuple[int, ...] = ()
    relabelled: tuple[tuple[int, int], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.removed or self.relabelled)

    def without(self, rows: np.ndarray) -> Self:
        """The same with more images left out."""
        removed = dict.fromkeys([*self.removed, *(int(row) for row in rows)])
        kept = tuple((row, label) for row, label in self.relabelled if row not in removed)
        return replace(self, removed=tuple(removed), relabelled=kept)

    def relabel(self, row: int, label: int) -> Self:
        """The same with one image labelled otherwise, and not left out."""
        others = tuple(pair for pair in self.relabelled if pair[0] != row)
        removed = tuple(other for other in self.removed if other != row)
        return replace(self, removed=removed, relabelled=(*others, (row, label)))


@dataclass(frozen=True)
class Refitted:
    """The last layer refitted on an edited training set: C classes, n calibration images.

    Attributes:
        theta: (C, D + 1).
        predicted: (C, D + 1), theta as influence predicts it.
        right: (n,) bool, whether it classifies each calibration image as labelled.
    """

    theta: np.ndarray
    predicted: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """One image's answer before and after an edit, both by refitted heads.

    Attributes:
        before: (C,) probabilities with the training set as it is.
        after: (C,) with the edited one.
        against: the runner-up before.
        margin: logit of the answer minus logit of the runner-up, before.
        change: of that margin, by the refit.
        predicted: the same as influence predicts it.
    """

    before: np.ndarray
    after: np.ndarray
    against: int
    margin: float
    change: float
    predicted: float


def refit(workspace: Workspace, edit: Edit) -> Refitted:
    """Refit the last layer on the edited training set; takes a fraction of a second.

    Raises:
        RefitDidNotConverge: when it does not reach its optimum.
    """
    assert workspace.refits is not None  # asked only where there are influences
    changes = edit.removed, dict(edit.relabelled)
    theta = workspace.refits.without(*changes).theta
    images = workspace.calibration.images
    answers = extend(np.asarray(images.activations.features)) @ theta.T
    right = answers.argmax(axis=1) == np.asarray(images.labels)
    return Refitted(theta, workspace.refits.predicted(*changes), right)


def outcome(workspace: Workspace, refitted: Refitted, features: np.ndarray) -> Outcome:
    """What the edit does to one image of (D,) features."""
    assert workspace.refits is not None
    extended, temperature = extend(features[None])[0], workspace.refit_temperature
    before, after, predicted = (
        theta @ extended
        for theta in (workspace.refits.head.theta, refitted.theta, refitted.predicted)
    )
    against, target = (int(c) for c in np.argsort(before)[-2:])
    margin = float(before[target] - before[against])
    return Outcome(
        before=probabilities(before[None], temperature)[0],
        after=probabilities(after[None], temperature)[0],
        against=against,
        margin=margin,
        change=float(after[target] - after[against]) - margin,
        predicted=float(predicted[target] - predicted[against]) - margin,
    )
