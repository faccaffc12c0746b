"""What training images do to a slice: a class, the mistakes, any labelled images."""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.cluster import KMeans

from explain.head import RefittedHead, extend
from explain.influence import HeadInfluence
from explain.refits import HeadRefits
from models.bank import normalise_rows

GROUPS_PER_CLASS = 12
_SMALLEST_GROUP = 10


@dataclass(frozen=True)
class Slice:
    """n labelled images, held out from training.

    Attributes:
        features: (n, D).
        labels: (n,).
    """

    features: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def digest(self) -> str:
        """Hex sha256 of its images and labels: what caches know it by."""
        digest = sha256(str(self.features.shape).encode())
        digest.update(np.ascontiguousarray(self.features).tobytes())
        digest.update(np.asarray(self.labels, np.int64).tobytes())
        return digest.hexdigest()

    def loss(self, head: RefittedHead) -> float:
        """Mean cross-entropy."""
        log_p = log_softmax(head.logits(self.features), axis=1)
        return -float(log_p[np.arange(len(self)), self.labels].mean())

    def accuracy(self, head: RefittedHead) -> float:
        """Share classified as labelled."""
        return float((head.logits(self.features).argmax(axis=1) == self.labels).mean())


@dataclass(frozen=True)
class GroupEffect:
    """A group of training images that are alike, and what it does to a slice.

    Attributes:
        rows: of the Bank, the most hurtful first.
        label: that all of them have.
        predicted: change of the slice's mean loss without them, the sum of their influences;
            negative for a group that hurts.
    """

    rows: np.ndarray
    label: int
    predicted: float


def removal_effects(influence: HeadInfluence, on: Slice) -> np.ndarray:
    """Predicted change of a slice's mean loss when each training image is left out.

    (1/N) d_i' V h_i with V = H^-1 (mean of (p - y) (x) h over the slice); see `HeadInfluence`.

    Returns:
        (N,) float32; negative for an image that hurts the slice.
    """
    extended = extend(on.features)
    residuals = softmax(extended @ influence.theta.T, axis=1)
    residuals[np.arange(len(on)), on.labels] -= 1
    gradient = (residuals.T @ extended / len(on)).astype(np.float32)
    direction = (influence.inverse_hessian @ gradient.ravel()).reshape(gradient.shape)
    return influence.along(direction)


def group_alike(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) group of each training image: k-means of unit features within each class.

    At most 12 groups a class, none planned for fewer than 10 images; seeded.

    Args:
        features: (N, D).
        labels: (N,).
    """
    unit, groups, used = normalise_rows(features), np.empty(len(labels), np.int64), 0
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = int(np.clip(len(rows) // _SMALLEST_GROUP, 1, GROUPS_PER_CLASS))
        groups[rows] = used + KMeans(count, n_init=1, random_state=0).fit_predict(unit[rows])
        used += count
    return groups


def group_effects(effects: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> list[GroupEffect]:
    """Groups, the most hurtful first.

    Args:
        effects: (N,) as `removal_effects` gives them.
        groups: (N,) as `group_alike` gives them.
        labels: (N,).
    """
    found = []
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        rows = rows[np.argsort(effects[rows], kind="stable")]
        found.append(GroupEffect(rows, int(labels[rows[0]]), float(effects[rows].sum())))
    return sorted(found, key=lambda group: group.predicted)


def refit_without_group(refits: HeadRefits, group: GroupEffect, on: Slice) -> tuple[float, float]:
    """Actual change of a slice's mean loss and accuracy when the group is left out."""
    head = refits.without(group.rows)
    return on.loss(head) - on.loss(refits.head), on.accuracy(head) - on.accuracy(refits.head)
