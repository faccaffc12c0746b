"""Confidence that means what it says."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

_RANGE = (np.log(0.05), np.log(20.0))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T that minimises the negative log-likelihood of softmax(logits / T).

    Guo, Pleiss, Sun and Weinberger (ICML 2017). T in [0.05, 20]. The labels are taken to be wrong
    once in n + 2 times (Laplace's rule), so that a set without one error is no proof of certainty.

    Args:
        logits: (n, C) of held-out images.
        labels: (n,) their classes.
    """
    logits = np.asarray(logits, np.float64)
    rows = np.arange(len(labels))
    error = 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        log_p = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -((1 - error) * log_p[rows, labels] + error * log_p.mean(axis=1)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=_RANGE, method="bounded").x))


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """(N, C) logits to calibrated class probabilities, float64."""
    return softmax(np.asarray(logits, np.float64) / temperature, axis=1)
