"""Refit the last layer to its optimum: only there is influence on it well defined."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

L2 = 1e-4
PENALTIES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, L2)
AGREEMENT = 0.99
GRADIENT_TOLERANCE = 1e-8
_NEWTON_STEPS = 30
_CHUNK = 8_192


class RefitDidNotConverge(RuntimeError):
    """The refitted head is not at its optimum; influences on it would be wrong."""


@dataclass(frozen=True)
class RefittedHead:
    """Multinomial logistic regression on frozen features, at its optimum.

    It minimises (1/N) sum_i -log p_i[y_i] + (l2/2) |theta|^2, features extended by a one.

    Attributes:
        theta: (C, D + 1) float64; the last column is the bias.
        l2: weight of the penalty.
        gradient_norm: largest entry of the objective's gradient.
    """

    theta: np.ndarray
    l2: float
    gradient_norm: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(N, D) to (N, C) float64."""
        return extend(features) @ self.theta.T


def extend(features: np.ndarray) -> np.ndarray:
    """(N, D) features to (N, D + 1) float64 with a column of ones."""
    return np.hstack([features, np.ones((len(features), 1))], dtype=np.float64)


def refit_head(
    features: np.ndarray, labels: np.ndarray, num_classes: int, l2: float = L2,
    start: np.ndarray | None = None,
) -> RefittedHead:  # fmt: skip
    """L-BFGS from `start` (zeros without one), then Newton with backtracking.

    Args:
        features: (N, D).
        labels: (N,) in 0..C-1.
        num_classes: C.
        l2: see `RefittedHead`.
        start: (C, D + 1).

    Raises:
        RefitDidNotConverge: when the gradient is not below 1e-8 in the end.
    """
    h = extend(features)
    shape = (num_classes, h.shape[1])
    one_hot = np.eye(num_classes)[np.asarray(labels)]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(shape)
        log_p = log_softmax(h @ theta.T, axis=1)
        gradient = (np.exp(log_p) - one_hot).T @ h / len(h) + l2 * theta
        loss = -(one_hot * log_p).sum() / len(h) + l2 / 2 * (theta**2).sum()
        return loss, gradient.ravel()

    first = np.zeros(shape) if start is None else np.asarray(start, np.float64)
    flat = minimize(
        objective, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200}
    ).x
    for _ in range(_NEWTON_STEPS):
        loss, gradient = objective(flat)
        if np.abs(gradient).max() < GRADIENT_TOLERANCE:
            break
        step = cho_solve(cho_factor(hessian(h, flat.reshape(shape), l2)), gradient)
        size = 1.0
        while objective(flat - size * step)[0] > loss - 1e-4 * size * (gradient @ step):
            size /= 2
            if size < 1e-6:  # at float64's floor: the loss no longer tells steps apart
                size = 1.0
                break
        flat = flat - size * step
    norm = float(np.abs(objective(flat)[1]).max())
    if not norm < GRADIENT_TOLERANCE:
        raise RefitDidNotConverge(f"After refitting the head, the gradient is still {norm:.1e}.")
    return RefittedHead(theta=flat.reshape(shape), l2=l2, gradient_norm=norm)


def refit_like(
    features: np.ndarray, labels: np.ndarray, logits: np.ndarray
) -> tuple[RefittedHead, float]:
    """The refit with the largest penalty that is still the same classifier.

    At the optimum under a larger penalty an answer rests on more images: effects are steadier, and
    say more of what training the whole network anew would do. Under too large a penalty it is
    another classifier. So the largest of seven is taken at which 99% of the training images get
    the network's answer; where there is none, the one at which most do.

    Args:
        features: (N, D).
        labels: (N,) in 0..C-1.
        logits: (N, C) of the network itself.

    Returns:
        The refitted head, and the share of training images that get the network's answer.

    Raises:
        RefitDidNotConverge: see `refit_head`; when not even the largest does.
    """
    answers = logits.argmax(axis=1)
    best, most, start = None, -1.0, None
    for l2 in PENALTIES:
        try:
            head = refit_head(features, labels, logits.shape[1], l2, start)
        except RefitDidNotConverge:
            if best is None:
                raise
            break  # under a smaller one it would not either
        agreement = float((head.logits(features).argmax(axis=1) == answers).mean())
        if agreement > most:
            best, most = head, agreement
        if agreement >= AGREEMENT:
            break
        start = head.theta
    assert best is not None
    return best, most


def hessian(h: np.ndarray, theta: np.ndarray, l2: float) -> np.ndarray:
    """Exact Hessian of the objective; for softmax it is the Gauss-Newton matrix too.

    (1/N) sum_i (diag p_i - p_i p_i') (x) h_i h_i' + l2 I.

    Args:
        h: (N, D + 1) extended features.
        theta: (C, D + 1).

    Returns:
        (C (D + 1), C (D + 1)) float64.
    """
    classes, dim = theta.shape
    blocks = np.zeros((classes, dim, classes, dim))
    for start in range(0, len(h), _CHUNK):
        chunk = h[start : start + _CHUNK]
        p = softmax(chunk @ theta.T, axis=1)
        for a in range(classes):
            for b in range(a, classes):
                weight = p[:, a] * ((a == b) - p[:, b])
                blocks[a, :, b, :] += chunk.T @ (weight[:, None] * chunk)
    for a in range(classes):
        for b in range(a):
            blocks[a, :, b, :] = blocks[b, :, a, :].T
    size = classes * dim
    return blocks.reshape(size, size) / len(h) + l2 * np.eye(size)
