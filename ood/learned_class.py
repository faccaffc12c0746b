"""A class that was named by a person: its logit beside the others, and its own p-values."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import expit, logsumexp

from models.bank import normalise_rows

NEIGHBOURS = 5
FEWEST = 2
L2 = 1e-5
_NEWTON_STEPS = 50
_ROUNDING = 1e-7  # of distances near 0
_TOLERANCE = 1e-8
_CHUNK = 1_024


@dataclass(frozen=True)
class LearnedClass:
    """One more row of the last layer, and the images that it was learned from.

    The other rows stay as they are. The new one minimises the cross-entropy of all training images
    and the named ones together, in which the named ones weigh as much as the mean class: logistic
    regression with minus the log-sum-exp of the other logits as offset. Features are divided by
    their mean length, so that one penalty suits every network.

    Attributes:
        weight: (D,) float64.
        bias: of its logit.
        members: (n, D) float32, unit features of the named images.
        nearest: (n, k) float32, each one's distances to its k nearest others, ascending.
    """

    weight: np.ndarray
    bias: float
    members: np.ndarray
    nearest: np.ndarray

    @classmethod
    def learn(
        cls, features: np.ndarray, logits: np.ndarray, new_features: np.ndarray,
        new_logits: np.ndarray,
    ) -> Self:  # fmt: skip
        """Learn a class from a few images.

        Args:
            features: (N, D) of the training images.
            logits: (N, C) of the classes known so far.
            new_features: (n, D) of the images that a person named, n at least 2.
            new_logits: (n, C).

        Raises:
            ValueError: with fewer than two images, or when a number is not finite.
        """
        if len(new_features) < FEWEST:
            raise ValueError(f"A class needs {FEWEST} images at least, not {len(new_features)}.")
        if not (np.isfinite(new_features).all() and np.isfinite(new_logits).all()):
            raise ValueError("Some features or logits of the named images are not finite.")
        weight, bias = _new_row(features, logits, new_features, new_logits)
        members = normalise_rows(new_features)
        distances = _distances(members, members)
        np.fill_diagonal(distances, np.inf)
        nearest = np.sort(distances, axis=1)[:, : min(NEIGHBOURS, len(members) - 1)]
        return cls(weight, bias, members, nearest)

    def logit(self, features: np.ndarray) -> np.ndarray:
        """(M, D) to (M,)."""
        found: np.ndarray = features @ self.weight + self.bias
        return found

    def p_values(self, features: np.ndarray) -> np.ndarray:
        """Full conformal p-values of the hypothesis that an image is of this class.

        The score of an image is its mean distance to its k nearest others among the members and
        the image asked about; the p-value is the share of these n + 1 images that score at least
        as high (Vovk, Gammerman and Shafer, 2005, section 2.2). It holds for each image asked about
        alone, whatever n: of images exchangeable with the members at most a share a has p <= a.

        Args:
            features: (M, D).

        Returns:
            (M,) float64, multiples of 1 / (n + 1).
        """
        k, n = self.nearest.shape[1], len(self.members)
        p_values = np.empty(len(features))
        for start in range(0, len(features), _CHUNK):
            asked = _distances(normalise_rows(features[start : start + _CHUNK]), self.members)
            own = np.sort(asked, axis=1)[:, :k].mean(axis=1, dtype=np.float64)
            # With the image among them, a member's farthest neighbour may give way to it.
            kept = self.nearest[:, :-1].sum(axis=1, dtype=np.float64)
            others = (kept + np.minimum(asked, self.nearest[:, -1])) / k
            as_odd = others >= own[:, None] - _ROUNDING  # which must not break a tie
            p_values[start : start + _CHUNK] = (1 + as_odd.sum(axis=1)) / (n + 1)
        return p_values


def _new_row(
    features: np.ndarray, logits: np.ndarray, new_features: np.ndarray, new_logits: np.ndarray
) -> tuple[np.ndarray, float]:
    """Weight (D,) and bias by Newton's method; the objective is strictly convex."""
    known, new = len(features), len(new_features)
    scale = float(np.linalg.norm(features, axis=1).mean()) or 1.0
    h = np.ones((known + new, features.shape[1] + 1))
    h[:known, :-1], h[known:, :-1] = features, new_features
    h[:, :-1] /= scale
    offset = -np.concatenate([logsumexp(z, axis=1) for z in (logits, new_logits)])
    is_new = np.arange(known + new) >= known
    weights = np.where(is_new, known / (logits.shape[1] * new), 1.0) / known
    penalty = np.append(np.full(features.shape[1], L2), 0)
    theta = np.zeros(h.shape[1])

    def loss(theta: np.ndarray) -> float:
        z = h @ theta + offset
        return float(weights @ (np.logaddexp(0, z) - is_new * z) + penalty @ theta**2 / 2)

    present = loss(theta)
    for _ in range(_NEWTON_STEPS):
        p = expit(h @ theta + offset)
        gradient = h.T @ (weights * (p - is_new)) + penalty * theta
        if np.abs(gradient).max() < _TOLERANCE:
            break
        curvature = h.T @ ((weights * p * (1 - p))[:, None] * h) + np.diag(penalty + 1e-12)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while (tried := loss(theta - size * step)) > present and size > 1e-8:
            size /= 2
        theta, present = theta - size * step, tried
    return theta[:-1] / scale, float(theta[-1])


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M, n) float64 Euclidean distances; of copies off by no more than about 1e-8."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * (a @ b.T)
    return np.sqrt(np.maximum(squares, 0))
