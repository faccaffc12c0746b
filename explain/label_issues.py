"""Which training images may carry a wrong label. Every score: larger = more suspicious."""

from dataclasses import dataclass

import numpy as np

from explain.label_noise import estimate_mistakes, mistake_log_odds, sharpen
from models.activations import Neighbours

NEIGHBOUR_WEIGHT = 0.3


@dataclass(frozen=True)
class LabelIssues:
    """What speaks against the label of each of N training images.

    Attributes:
        suspicion: (N,) float32, log odds of a mistake up to a constant; the score to rank by.
        rank: (N,) int64, 0 for the most suspicious, ties by row.
        margin: (N,) float32 in [0, 1], see `normalised_margin`.
        self_confidence: (N,) float32 in [0, 1], see `self_confidence`.
        disagreement: (N,) float32 in [0, 1], share of its neighbours with another label.
        area_under_margin: (N,) float32, in logits; None where no epochs were logged.
        suggested: (N,) int64, the class that head and neighbours together find likeliest; -1 where
            that is its label.
        flagged: (N,) bool, the most suspicious images, as many as confident learning counts.
    """

    suspicion: np.ndarray
    rank: np.ndarray
    margin: np.ndarray
    self_confidence: np.ndarray
    disagreement: np.ndarray
    area_under_margin: np.ndarray | None
    suggested: np.ndarray
    flagged: np.ndarray


def label_issues(
    probabilities: np.ndarray, labels: np.ndarray, neighbours: Neighbours,
    epoch_logits: np.ndarray | None = None,
) -> LabelIssues:  # fmt: skip
    """All scores of all training images.

    The suspicion joins two witnesses that err differently: the refitted head, 70%, and the labels
    of the neighbours, 30%. A network that has learned its wrong labels by heart has bent the
    features to them, which misleads the head more than the neighbours.

    Args:
        probabilities: (N, C) from `explain.cross_validation.head_cross_validation`; C at least 2.
        labels: (N,) in 0..C-1.
        neighbours: (N, k) of each training image among the others (`Bank.locate_own`); an image
            that is given as its own neighbour is passed over.
        epoch_logits: (E, N, C) of the training itself, an epoch each.

    Raises:
        ValueError: when shapes disagree, or a probability is NaN.
    """
    labels = np.asarray(labels)
    _check(probabilities, labels, neighbours)
    votes = neighbour_votes(neighbours, labels, probabilities.shape[1])
    joined = sharpen((1 - NEIGHBOUR_WEIGHT) * probabilities + NEIGHBOUR_WEIGHT * votes)
    suspicion = mistake_log_odds(joined, labels, estimate_mistakes(joined, labels))
    rank = np.empty(len(labels), np.int64)
    rank[np.argsort(-suspicion, kind="stable")] = np.arange(len(labels))
    suggested = np.where(_best_other(joined, labels) > 0, joined.argmax(axis=1), -1)
    return LabelIssues(
        suspicion=suspicion,
        rank=rank,
        margin=normalised_margin(probabilities, labels),
        self_confidence=self_confidence(probabilities, labels),
        disagreement=self_confidence(votes, labels),
        area_under_margin=(
            None if epoch_logits is None else area_under_margin(epoch_logits, labels)
        ),
        suggested=suggested,
        flagged=(rank < confident_mistakes(joined, labels).sum()) & (suggested >= 0),
    )


def self_confidence(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) float32, 1 - p_y: one minus what is called self-confidence, so that large is bad.

    Northcutt, Jiang and Chuang (JAIR 2021, section 3).
    """
    return (1 - probabilities[np.arange(len(labels)), labels]).astype(np.float32)


def normalised_margin(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) float32, (1 + max_{k != y} p_k - p_y) / 2: one minus what is called so.

    0 for a sure label, 1 for a surely other one (Northcutt, Jiang and Chuang, JAIR 2021).
    """
    return ((1 + _best_other(probabilities, labels)) / 2).astype(np.float32)


def area_under_margin(epoch_logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) float32, mean over epochs of max_{k != y} z_k - z_y: minus what is called so.

    Pleiss, Zhang, Elenberg and Weinberger (NeurIPS 2020, equation 1).

    Args:
        epoch_logits: (E, N, C), E at least 1; read an epoch at a time.
        labels: (N,).
    """
    total = np.zeros(len(labels))
    for logits in epoch_logits:
        total += _best_other(np.asarray(logits, np.float32), labels)
    return (total / len(epoch_logits)).astype(np.float32)


def neighbour_votes(neighbours: Neighbours, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(N, C) float32: the shares of classes among each training image's other neighbours.

    All classes alike for an image that has none.
    """
    count = len(labels)
    image = np.arange(count)[:, None]
    cells = image * num_classes + labels[neighbours.rows]
    cells = cells[neighbours.rows != image]
    votes = np.bincount(cells, minlength=count * num_classes).reshape(count, num_classes)
    votes[votes.sum(axis=1) == 0] = 1
    return (votes / votes.sum(axis=1, keepdims=True)).astype(np.float32)


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) bool: surely of another class than labelled, by confident learning.

    Northcutt, Jiang and Chuang (JAIR 2021): an image is surely of class k when p_k reaches the
    mean of p_k over images labelled k (equation 2); of several such classes the most probable one
    counts. Flagged are those off the diagonal of the confident joint whose label is not as likely
    as any class.

    Args:
        probabilities: (N, C).
        labels: (N,); a class without images is nobody's.
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    counts = np.bincount(labels, minlength=classes)
    thresholds = np.bincount(labels, own, classes) / np.maximum(counts, 1)
    thresholds[counts == 0] = np.inf
    reached = probabilities >= thresholds - 1e-6  # rounding must not undo a tie
    likeliest = probabilities.argmax(axis=1)
    surely = np.where(reached.sum(axis=1) > 1, likeliest, reached.argmax(axis=1))
    return reached.any(axis=1) & (surely != labels) & (_best_other(probabilities, labels) > 1e-6)


def _best_other(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, C) to (N,): the largest of another class, less that of the label."""
    image = np.arange(len(labels))
    others = values.copy()
    others[image, labels] = -np.inf
    return others.max(axis=1) - values[image, labels]


def _check(probabilities: np.ndarray, labels: np.ndarray, neighbours: Neighbours) -> None:
    n = len(labels)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(f"probabilities {probabilities.shape} must be (N, C), C at least 2.")
    if labels.shape != (n,) or len(probabilities) != n or len(neighbours.rows) != n:
        raise ValueError(
            f"probabilities {probabilities.shape}, labels {labels.shape} and neighbours "
            f"{neighbours.rows.shape} differ in length."
        )
    if np.isnan(probabilities).any():
        raise ValueError(f"{np.isnan(probabilities).any(axis=1).sum()} rows have NaN.")
