"""Detectors that see each class as a Gaussian, all with one covariance.

z are features of D numbers, K the classes that have training images, m_c their means, S the
covariance within classes. Those with ++ read z/|z| in place of z.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from models.activations import Activations
from models.bank import Bank, TuningSet, normalise_rows
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.chunks import by_chunk
from ood.detectors.moments import class_moments


def _features(activations: Activations) -> np.ndarray:
    return np.asarray(activations.features, np.float32)


def _unit_features(activations: Activations) -> np.ndarray:
    return normalise_rows(activations.features)


@dataclass(frozen=True)
class Mahalanobis:
    """min_c (z - m_c)' S^-1 (z - m_c), equation 2 of the paper, on the penultimate features.

    Attributes:
        centre: (D,), mean of all training images; near it float32 loses nothing.
        whitening: (D, D), W with W W' = S^-1.
        means: (K, D), (m_c - centre) W.
    """

    centre: np.ndarray
    whitening: np.ndarray
    means: np.ndarray
    vectors = staticmethod(_features)
    info: ClassVar = DetectorInfo(
        name="mds",
        title="Mahalanobis distance",
        question="Is it far from every class, counted in the spread that classes have?",
        consumes=frozenset({"features"}),
        kind="distance",
        paper=Paper(
            "Lee, Lee, Lee and Shin", "NeurIPS", 2018,
            "A Simple Unified Framework for Detecting Out-of-Distribution Samples and "
            "Adversarial Attacks",
            "https://arxiv.org/abs/1807.03888",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Class means and tied covariance over the Bank."""
        return cls(*fit_tied_gaussian(bank, cls.vectors))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, squared distance in standard deviations."""
        return by_chunk(self._score, activations)

    def _score(self, activations: Activations) -> np.ndarray:
        return nearest((self.vectors(activations) - self.centre) @ self.whitening, self.means)


@dataclass(frozen=True)
class MahalanobisPlusPlus(Mahalanobis):
    """min_c (n - m_c)' S^-1 (n - m_c) with n = z/|z|, whose length then says nothing."""

    vectors = staticmethod(_unit_features)
    info: ClassVar = DetectorInfo(
        name="mds++",
        title="Mahalanobis++",
        question="Does it point away from every class, counted in the spread that classes have?",
        consumes=frozenset({"features"}),
        kind="distance",
        paper=Paper(
            "Mueller and Hein", "ICML", 2025,
            "Mahalanobis++: Improving OOD Detection via Feature Normalization",
            "https://arxiv.org/abs/2505.18032",
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class RelativeMahalanobis:
    """min_c MD_c - MD_0: MD_c to class c, MD_0 to one Gaussian over all images.

    The covariance of all images is S + B, B that of the class means. So |z|^2 cancels between the
    two, and only the K products g_c = (z - centre)' S^-1 (m_c - centre) are left. With G the
    products between class means and F the diagonal of class frequencies, by Woodbury's identity,
    MD_c - MD_0 = G_cc - 2 g_c + g' A A' g, A A' = F^1/2 (1 + F^1/2 G F^1/2)^-1 F^1/2.

    Attributes:
        centre: (D,), mean of all training images.
        directions: (D, K), S^-1 (m_c - centre).
        squares: (K,), G_cc.
        background: (K, K), A.
    """

    centre: np.ndarray
    directions: np.ndarray
    squares: np.ndarray
    background: np.ndarray
    vectors = staticmethod(_features)
    info: ClassVar = DetectorInfo(
        name="rmds",
        title="Relative Mahalanobis distance",
        question="Is it no nearer to any class than to training images at large?",
        consumes=frozenset({"features"}),
        kind="distance",
        paper=Paper(
            "Ren, Fort, Liu, Roy, Padhy and Lakshminarayanan", "ICML workshop UDL", 2021,
            "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
            "https://arxiv.org/abs/2106.09022",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Class means and tied covariance over the Bank."""
        moments = class_moments(bank, cls.vectors)
        factor = cholesky(moments.covariance, lower=True)
        white = solve_triangular(factor, (moments.means - moments.centre).T, lower=True)
        products = white.T @ white
        root = np.sqrt(moments.frequencies)[:, None]
        directions = solve_triangular(factor, white, lower=True, trans="T")
        # Of the inner matrix, which is at least 1, the factor is safe; of its inverse it is not.
        inner = cholesky(np.eye(len(products)) + root * products * root.T, lower=True)
        inverse = solve_triangular(inner, np.eye(len(inner)), lower=True)
        return cls(
            centre=moments.centre.astype(np.float32),
            directions=directions.astype(np.float32, order="C"),
            squares=np.diag(products).astype(np.float32),
            background=(root * inverse.T).astype(np.float32, order="C"),
        )

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, difference of squared distances in standard deviations."""
        return by_chunk(self._score, activations)

    def _score(self, activations: Activations) -> np.ndarray:
        products = (self.vectors(activations) - self.centre) @ self.directions
        relative = np.square(products @ self.background).sum(axis=1)
        return relative + (self.squares - 2 * products).min(axis=1)


@dataclass(frozen=True)
class RelativeMahalanobisPlusPlus(RelativeMahalanobis):
    """min_c MD_c - MD_0 on z/|z|."""

    vectors = staticmethod(_unit_features)
    info: ClassVar = DetectorInfo(
        name="rmds++",
        title="Relative Mahalanobis++",
        question="Does it point no more to any class than to training images at large?",
        consumes=frozenset({"features"}),
        kind="distance",
        paper=MahalanobisPlusPlus.info.paper,
    )


def nearest(white: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(N, D) whitened vectors and (K, D) to (N,) squared distance to the nearest mean."""
    to_means = (np.square(means).sum(axis=1) - 2 * white @ means.T).min(axis=1)
    return np.maximum(np.einsum("nd,nd->n", white, white) + to_means, 0)


def fit_tied_gaussian(
    bank: Bank, vectors: Callable[[Activations], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (D,), whitening (D, D) and whitened class means (K, D), over the Bank, float32."""
    moments = class_moments(bank, vectors)
    factor = cholesky(moments.covariance, lower=True)
    whitening = solve_triangular(factor, np.eye(len(factor)), lower=True).T
    white_means = (moments.means - moments.centre) @ whitening
    return (
        moments.centre.astype(np.float32),
        whitening.astype(np.float32, order="C"),
        white_means.astype(np.float32, order="C"),
    )
