"""How labels are mistaken in a training set, and how likely each one is mistaken."""

import numpy as np
from scipy.special import gammaln

SUREST = 0.3
_CONCENTRATIONS = np.geomspace(0.1, 1e4, 60)
_NATS = 2.0
_FLOOR = 0.02
_SHARPNESS = 3


def estimate_mistakes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which classes are mistaken for which, where a label is wrong.

    Counted among the surest 30% of the images that each class is predicted for: there a classifier
    hardly errs, so that other labels are mistakes of the labelling (the anchor points of
    Patrini, Rozza, Menon, Nock and Qu, CVPR 2017). The counts of each class are shrunk to mistakes
    spread evenly, by a Dirichlet prior that all classes share. Its concentration is the largest
    whose marginal likelihood is within 2 nats of the best: evenly, unless the counts say otherwise.

    Args:
        probabilities: (N, C) out of sample, C at least 2.
        labels: (N,) in 0..C-1.

    Returns:
        (C, C) float64; row k: the share of each class among wrong labels of images of class k.
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    largest = np.partition(probabilities, -2, axis=1)
    sureness = largest[:, -1] - largest[:, -2]
    counts = np.zeros((classes, classes))
    for k in range(classes):
        rows = np.flatnonzero(predicted == k)
        surest = rows[np.argsort(-sureness[rows], kind="stable")]
        surest = surest[: int(np.ceil(SUREST * len(rows)))]
        counts[k] = np.bincount(labels[surest], minlength=classes)
    np.fill_diagonal(counts, 0)
    concentration = _most_even(counts)
    prior = concentration / (classes - 1) * (1 - np.eye(classes))
    return (counts + prior) / (counts.sum(axis=1, keepdims=True) + concentration)


def sharpen(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) to (N, C) in proportion to (p + 0.02)^3.

    A head with a penalty, fitted to labels of which some are wrong, is less sure than the images
    deserve; and how small its smallest probabilities are says little.
    """
    sharp = (probabilities + _FLOOR) ** _SHARPNESS
    return sharp / sharp.sum(axis=1, keepdims=True)


def mistake_log_odds(
    probabilities: np.ndarray, labels: np.ndarray, mistakes: np.ndarray
) -> np.ndarray:
    """By Bayes' rule, how likely each label is a mistake: log sum_{k != y} p_k m_ky - log p_y.

    Up to a constant, as the share of wrong labels moves all of them alike.

    Args:
        probabilities: (N, C) of the classes before the label is known, none of them zero.
        labels: (N,) in 0..C-1.
        mistakes: (C, C), see `estimate_mistakes`.

    Returns:
        (N,) float32; larger = more suspicious.
    """
    wrong = (probabilities * mistakes[:, labels].T).sum(axis=1)
    return np.log(wrong / probabilities[np.arange(len(labels)), labels]).astype(np.float32)


def _most_even(counts: np.ndarray) -> float:
    """The concentration for (C, C) counts, zero on the diagonal; a Dirichlet-multinomial each row.

    Counts of zero add nothing to the likelihood, and most are zero where there are many classes.
    """
    each = _CONCENTRATIONS[:, None] / (len(counts) - 1)
    likelihood = (gammaln(each + counts[counts > 0]) - gammaln(each)).sum(axis=1)
    each = _CONCENTRATIONS[:, None]
    likelihood += (gammaln(each) - gammaln(each + counts.sum(axis=1))).sum(axis=1)
    return float(_CONCENTRATIONS[likelihood >= likelihood.max() - _NATS][-1])
