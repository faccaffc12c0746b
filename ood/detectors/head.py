"""Detectors that compare the features with the head.

z are features of D numbers, f = W z + b logits of C classes, y the largest's class, w_c rows of
W, m the mean of the training features.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.spatial.distance import cdist

from models.activations import Activations
from models.bank import Bank, TuningSet
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.chunks import by_chunk, group_sums, mean_row


@dataclass(frozen=True)
class FDBD:
    """Mean distance to the decision boundaries, over the distance to the training mean.

    -1/(C-1) sum_(c != y) (f_y - f_c) / |w_y - w_c| / |z - m|.

    Attributes:
        mean: (D,), m.
        closeness: (C, C), 1/|w_a - w_b|; 0 between classes with the same weights.
    """

    mean: np.ndarray
    closeness: np.ndarray
    info: ClassVar = DetectorInfo(
        name="fdbd",
        title="Decision boundary distance",
        question="Would a small change make it another class?",
        consumes=frozenset({"features", "logits"}),
        kind="joined",
        paper=Paper(
            "Liu and Qin", "ICML", 2024,
            "Fast Decision Boundary based Out-of-Distribution Detector",
            "https://arxiv.org/abs/2312.11536",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Distances between the head's rows, and the Bank's mean."""
        distances = cdist(bank.head.weight, bank.head.weight)
        closeness = np.divide(1, distances, out=np.zeros_like(distances), where=distances > 0)
        mean = mean_row(bank.images.activations.features)
        return cls(mean=mean.astype(np.float32), closeness=closeness.astype(np.float32))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, at most 0; a ratio of lengths."""
        return by_chunk(self._score, activations)

    def _score(self, activations: Activations) -> np.ndarray:
        logits = np.asarray(activations.logits, np.float32)
        gaps = logits.max(axis=1, keepdims=True) - logits
        total = np.einsum("nc,nc->n", gaps, self.closeness[logits.argmax(axis=1)])
        return -total / max(logits.shape[1] - 1, 1) / _distance(activations, self.mean)


@dataclass(frozen=True)
class NCI:
    """Neural collapse: -w_y'(z - m)/|z - m| - a |z|_1.

    w_y'(z - m) is f_y less what the head answers class y at m, so that W itself is not needed.

    Attributes:
        mean: (D,), m.
        offsets: (C,), the logits of m.
        strength: a. Only outliers could tune it; 1e-4 is OpenOOD's, from the authors.
    """

    STRENGTH: ClassVar = 1e-4
    mean: np.ndarray
    offsets: np.ndarray
    strength: float
    info: ClassVar = DetectorInfo(
        name="nci",
        title="Neural collapse",
        question="Do its features fail to line up with the class that the network names?",
        consumes=frozenset({"features", "logits"}),
        kind="joined",
        paper=Paper(
            "Liu and Qin", "CVPR", 2025,
            "Detecting Out-of-Distribution Through the Lens of Neural Collapse",
            "https://arxiv.org/abs/2311.01479",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """The Bank's mean, and what the head makes of it."""
        mean = mean_row(bank.images.activations.features)
        offsets = bank.head.weight @ mean + bank.head.bias
        return cls(mean.astype(np.float32), offsets.astype(np.float32), cls.STRENGTH)

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in lengths of w_y."""
        return by_chunk(self._score, activations)

    def _score(self, activations: Activations) -> np.ndarray:
        logits = np.asarray(activations.logits, np.float32)
        along = logits.max(axis=1) - self.offsets[logits.argmax(axis=1)]
        length = np.abs(activations.features).sum(axis=1, dtype=np.float32)
        return -along / _distance(activations, self.mean) - self.strength * length


@dataclass(frozen=True)
class SHE:
    """Simplified Hopfield energy: -z's_y, s_c the mean of training images rightly taken for c.

    Attributes:
        patterns: (C, D), s_c; zeros for a class that is never rightly named, so that whoever is
            taken for it scores 0, which for features that are not negative is the most outlying.
    """

    patterns: np.ndarray
    info: ClassVar = DetectorInfo(
        name="she",
        title="Hopfield energy",
        question="Is it unlike the average image of the class that the network names?",
        consumes=frozenset({"features", "logits"}),
        kind="joined",
        paper=Paper(
            "Zhang, Fu, Chen, Du, Li, Wang, Liu, Han and Zhang", "ICLR", 2023,
            "Out-of-Distribution Detection based on In-Distribution Data Patterns Memorization "
            "with Modern Hopfield Energy",
            "https://openreview.net/forum?id=KkazG4lgKL",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Mean features of each class's correctly classified training images."""
        images, classes = bank.images, bank.num_classes
        labels = np.asarray(images.labels)
        right = images.activations.logits.argmax(axis=1) == labels
        # Those taken wrongly are summed into a group of their own, which saves their copies.
        groups = np.where(right, labels, classes)
        sums = group_sums(images.activations.features, groups, classes + 1)[:classes]
        sizes = np.bincount(labels[right], minlength=classes)[:, None]
        return cls(patterns=(sums / np.maximum(sizes, 1)).astype(np.float32))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in squared features."""
        return by_chunk(self._score, activations)

    def _score(self, activations: Activations) -> np.ndarray:
        patterns = self.patterns[activations.logits.argmax(axis=1)]
        return -np.einsum("nd,nd->n", np.asarray(activations.features, np.float32), patterns)


def _distance(activations: Activations, mean: np.ndarray) -> np.ndarray:
    """(N,) |z - m|, never 0."""
    around = activations.features - mean
    return np.maximum(np.sqrt(np.einsum("nd,nd->n", around, around)), 1e-8)
