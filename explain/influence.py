"""Which training images made it say so."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax

from explain.head import RefittedHead, extend, hessian
from models.bank import Bank

LARGEST_HEAD = 8_000
_CHUNK = 16_384


@dataclass(frozen=True)
class Influences:
    """The training images that moved one decision most.

    An influence is the predicted change of the decision's margin (logit of `target` minus
    logit of `against`) if that training image were left out and the head refitted. So helpful
    images have negative influences, harmful ones positive.

    Attributes:
        target: the predicted class.
        against: the runner-up.
        helpful: (k,) rows of the Bank.
        helpful_influence: (k,) float32.
        harmful: (k,) rows of the Bank.
        harmful_influence: (k,) float32.
    """

    target: int
    against: int
    helpful: np.ndarray
    helpful_influence: np.ndarray
    harmful: np.ndarray
    harmful_influence: np.ndarray


@dataclass(frozen=True)
class HeadInfluence:
    """Closed-form influence of N training images on the refitted head.

    Koh and Liang (ICML 2017, equation 2) with the head's exact Hessian H. With residuals
    d_i = p_i - y_i and u the unit vectors' difference of the two classes, leaving image i out
    changes the margin of x by (1/N) d_i' V h_i, where V = H^-1 (u (x) h_x).

    Attributes:
        features: (N, D + 1) float32, extended.
        residuals: (N, C) float32, d_i.
        inverse_hessian: (C (D + 1), C (D + 1)) float32.
        self_influence: (N,) float32, g_i' H^-1 g_i with g_i = d_i (x) h_i.
        theta: (C, D + 1), the refitted head.
    """

    features: np.ndarray
    residuals: np.ndarray
    inverse_hessian: np.ndarray
    self_influence: np.ndarray
    theta: np.ndarray

    @classmethod
    def fit(cls, bank: Bank, head: RefittedHead) -> Self:
        """Invert the Hessian and take every image's self-influence."""
        features = extend(bank.images.activations.features)
        matrix = hessian(features, head.theta, head.l2)
        inverse = cho_solve(cho_factor(matrix), np.eye(len(matrix))).astype(np.float32)
        return cls.from_inverse(bank, head.theta, inverse)

    @classmethod
    def from_inverse(
        cls, bank: Bank, theta: np.ndarray, inverse: np.ndarray,
        self_influence: np.ndarray | None = None,
    ) -> Self:  # fmt: skip
        """Put together from what is stored, a matrix product for the rest."""
        features = extend(bank.images.activations.features)
        residuals = softmax(features @ theta.T, axis=1)
        residuals[np.arange(len(residuals)), np.asarray(bank.images.labels)] -= 1
        features, residuals = features.astype(np.float32), residuals.astype(np.float32)
        if self_influence is None:
            self_influence = _quadratic_forms(features, residuals, inverse)
        return cls(features, residuals, inverse, self_influence, theta)

    def predict(self, features: np.ndarray) -> int:
        """The class that the refitted head gives to an image of (D,) features."""
        return int((self.theta @ np.append(features, 1)).argmax())

    def on_margin(self, features: np.ndarray, target: int, against: int) -> np.ndarray:
        """Every training image's influence on one image's margin.

        Args:
            features: (D,) of the image in question.
            target: class whose logit counts positive.
            against: class whose logit counts negative.

        Returns:
            (N,) float32, in logits.
        """
        classes, dim = self.residuals.shape[1], self.features.shape[1]
        inverse = self.inverse_hessian.reshape(classes * dim, classes, dim)
        extended = np.append(features, 1).astype(np.float32)
        direction = (inverse[:, target] - inverse[:, against]) @ extended
        projected = self.features @ direction.reshape(classes, dim).T
        return np.einsum("nc,nc->n", self.residuals, projected) / len(self.features)

    def explain(self, features: np.ndarray, target: int, against: int, k: int) -> Influences:
        """The k most helpful and the k most harmful training images.

        Helpful ones are ranked by l-RelatIF, influence over the root of self-influence
        (Barshan, Brunet and Dziugaite, AISTATS 2020): ranked by influence alone, the same few
        outliers would explain every image. Harmful ones are ranked by influence, since it is
        outliers and wrong labels that one looks for there.
        """
        influence = self.on_margin(features, target, against)
        relative = influence / np.sqrt(np.maximum(self.self_influence, 1e-12))
        helpful = _smallest(relative, k)
        helpful = helpful[influence[helpful] < 0]
        harmful = _smallest(-influence, k)
        harmful = harmful[influence[harmful] > 0]
        return Influences(target, against, helpful, influence[helpful], harmful, influence[harmful])


def _smallest(values: np.ndarray, k: int) -> np.ndarray:
    k = min(k, len(values))
    rows = np.argpartition(values, k - 1)[:k]
    return rows[np.argsort(values[rows], kind="stable")]


def _quadratic_forms(
    features: np.ndarray, residuals: np.ndarray, inverse: np.ndarray
) -> np.ndarray:
    """(N,) of g_i' H^-1 g_i, a pair of classes at a time."""
    classes, dim = residuals.shape[1], features.shape[1]
    blocks = inverse.reshape(classes, dim, classes, dim)
    forms = np.zeros(len(features), np.float32)
    for start in range(0, len(features), _CHUNK):
        h, d = features[start : start + _CHUNK], residuals[start : start + _CHUNK]
        for a in range(classes):
            for b in range(a, classes):
                pair = np.einsum("nd,nd->n", h @ blocks[a, :, b, :], h)
                forms[start : start + _CHUNK] += (1 if a == b else 2) * d[:, a] * d[:, b] * pair
    return forms
