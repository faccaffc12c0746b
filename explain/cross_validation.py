"""What the last layer says of each training image when it is fitted without it."""

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import softmax

from explain.head import extend
from models.bank import normalise_rows

FOLDS = 5
L2 = 1e-3
TOLERANCE = 1e-4
_ITERATIONS = 500


def head_cross_validation(
    features: np.ndarray, labels: np.ndarray, num_classes: int, folds: int = FOLDS,
    l2: float = L2, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Out-of-sample class probabilities, by refitting the last layer only.

    The head of `explain.head.refit_head` is fitted on all folds but one, and asked about that one;
    every fold starts from zeros, as a start that has seen an image would remember its label.
    Features are made unit vectors, so that one penalty suits every network; it is ten times the
    smallest of `explain.head`, since the network that made the features has seen all labels, and a
    head that is free to follow would find the wrong ones in them again.

    Args:
        features: (N, D), any length.
        labels: (N,) in 0..C-1; a class of one image is never known to the fold that asks for it.
        num_classes: C.
        folds: at least 2 and at most N.
        l2: weight of the penalty on the head.
        seed: of the drawing of folds, within each class.

    Returns:
        (N, C) float32, rows sum to one.

    Raises:
        ValueError: when shapes disagree, a feature is not finite or there are too few images.
    """
    labels = np.asarray(labels)
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"features {features.shape} and labels {labels.shape} must be (N, D) and (N,)."
        )
    if not 2 <= folds <= len(labels):
        raise ValueError(f"{len(labels)} images cannot be split into {folds} folds, at least two.")
    h = extend(normalise_rows(features)).astype(np.float32)
    if not np.isfinite(h).all():
        raise ValueError("Some features are not finite.")
    fold_of = stratified_folds(labels, folds, seed)
    probabilities = np.empty((len(labels), num_classes), np.float32)
    for fold in range(folds):
        held = fold_of == fold
        theta = fit_head(h[~held], labels[~held], num_classes, l2)
        probabilities[held] = softmax(h[held] @ theta.T, axis=1)
    return probabilities


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(N,) int: the fold of each image. Folds differ by one image at most, in each class too."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold_of = np.empty(len(labels), np.int64)
    fold_of[order] = np.arange(len(labels)) % folds
    return fold_of


def fit_head(h: np.ndarray, labels: np.ndarray, num_classes: int, l2: float) -> np.ndarray:
    """The head to about four digits, by L-BFGS in float32 from zeros.

    In coordinates in which the features' second moment is the identity: the Hessian lies below
    1/2 (I - 11'/C) (x) E[hh'] (Boehning, AISM 1992), which is the same in all directions then.

    Args:
        h: (N, D + 1) float32 extended features.
        labels: (N,).
        num_classes: C.
        l2: weight of the penalty.

    Returns:
        (C, D + 1) float32.
    """
    count, dim = h.shape
    moment = (h.T @ h).astype(np.float64) / count + 2 * l2 * np.eye(dim)
    whitening = solve_triangular(cholesky(moment, lower=True), np.eye(dim), lower=True)
    whitening = whitening.astype(np.float32)
    one_hot = np.eye(num_classes, dtype=np.float32)[labels]
    rows = np.arange(count)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(num_classes, dim).astype(np.float32) @ whitening
        logits = h @ theta.T
        logits -= logits.max(axis=1, keepdims=True)
        p = np.exp(logits)
        total = p.sum(axis=1, keepdims=True)
        loss = float((np.log(total[:, 0]) - logits[rows, labels]).mean(dtype=np.float64))
        p /= total
        p -= one_hot
        gradient = (p.T @ h / np.float32(count) + np.float32(l2) * theta) @ whitening.T
        return loss + l2 / 2 * float(np.square(theta).sum()), gradient.ravel().astype(np.float64)

    options = {"maxiter": _ITERATIONS, "gtol": TOLERANCE, "ftol": 0, "maxcor": 20}
    found = minimize(
        objective, np.zeros(num_classes * dim), jac=True, method="L-BFGS-B", options=options
    )
    return found.x.reshape(num_classes, dim).astype(np.float32) @ whitening
