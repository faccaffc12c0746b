"""Detectors that see each class as a Gaussian, all with one covariance.

n stands for unit vectors z/|z|, K for the classes that have training images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from models.activations import Activations
from models.bank import Bank, normalise_rows
from ood.detectors.base import DetectorInfo, Paper

RIDGE = 1e-6
_CHUNK = 16_384


@dataclass(frozen=True)
class Mahalanobis:
    """min_c (n - m_c)' S^-1 (n - m_c), on normalised penultimate features.

    Lee et al. (NeurIPS 2018, equation 2) on n, as Mueller and Hein (ICML 2025).

    Attributes:
        centre: (D,), mean of all training images; near it float32 loses nothing.
        whitening: (D, D), W with W W' = S^-1.
        means: (K, D), (m_c - centre) W.
    """

    centre: np.ndarray
    whitening: np.ndarray
    means: np.ndarray
    info: ClassVar = DetectorInfo(
        name="mahalanobis",
        title="Mahalanobis distance",
        question="Is it far from every class, counted in the spread that classes have?",
        consumes=frozenset({"features"}),
        paper=Paper(
            "Mueller and Hein", "ICML", 2025,
            "Mahalanobis++: Improving OOD Detection via Feature Normalization",
            "https://arxiv.org/abs/2505.18032",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank) -> Self:
        """Class means and tied covariance over the Bank."""
        return cls(*_fit_tied_gaussian(bank, lambda a: normalise_rows(a.features)))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, squared distance in standard deviations."""
        centred = normalise_rows(activations.features) - self.centre
        return _nearest(centred @ self.whitening, self.means)


@dataclass(frozen=True)
class LayeredMahalanobis:
    """The same distance over the evidence of all stages at once.

    n is the channel means of every stage and the penultimate features, each of length one, end
    to end. Lee et al. (NeurIPS 2018, section 2.2) weigh layers by a regression on outliers; one
    covariance over all of them needs none, and knows which layers say the same.

    Attributes:
        centre: (D + sum K_l,), mean of all training images.
        whitening: (D + sum K_l, D + sum K_l), W with W W' = S^-1.
        means: (K, D + sum K_l), (m_c - centre) W.
    """

    centre: np.ndarray
    whitening: np.ndarray
    means: np.ndarray
    info: ClassVar = DetectorInfo(
        name="layers",
        title="Mahalanobis over layers",
        question="Is it far from every class, from its edges and textures up to its shape?",
        consumes=frozenset({"features", "channels"}),
        paper=Paper(
            "after Lee, Lee, Lee and Shin", "NeurIPS", 2018,
            "A Simple Unified Framework for Detecting Out-of-Distribution Samples and "
            "Adversarial Attacks",
            "https://arxiv.org/abs/1807.03888",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank) -> Self:
        """Class means and tied covariance over the Bank."""
        return cls(*_fit_tied_gaussian(bank, _all_layers))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, squared distance in standard deviations."""
        centred = _all_layers(activations) - self.centre
        return _nearest(centred @ self.whitening, self.means)


def _all_layers(activations: Activations) -> np.ndarray:
    layers = (*activations.channels, activations.features)
    return np.concatenate([normalise_rows(layer) for layer in layers], axis=1)


def _nearest(white: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(N, D) whitened vectors to (N,) squared distance to the nearest mean, by one product."""
    squares = np.square(white).sum(axis=1, keepdims=True) + np.square(means).sum(axis=1)
    return np.maximum(squares - 2 * white @ means.T, 0).min(axis=1)


def _fit_tied_gaussian(
    bank: Bank, vectors: Callable[[Activations], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre (D,), whitening (D, D) and whitened class means (K, D), over the Bank in float64.

    A ridge of 1e-6 of the mean variance keeps directions in which nothing moves from dividing
    by zero.
    """
    labels = np.asarray(bank.images.labels)
    present = np.unique(labels)
    activations = bank.images.activations
    dim = vectors(activations.take(np.arange(1))).shape[1]
    sums, products = np.zeros((bank.num_classes, dim)), np.zeros((dim, dim))
    for start in range(0, len(labels), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(labels)))
        chunk = vectors(activations.take(rows)).astype(np.float64)
        np.add.at(sums, labels[rows], chunk)
        products += chunk.T @ chunk
    counts = np.bincount(labels, minlength=bank.num_classes)[present, None]
    means = sums[present] / counts
    covariance = (products - means.T @ (counts * means)) / len(labels)
    # Never below float32's own noise on unit vectors, which all-identical images would leave.
    ridge = max(RIDGE * np.trace(covariance) / dim, 1e-12)
    factor = cholesky(covariance + ridge * np.eye(dim), lower=True)
    whitening = solve_triangular(factor, np.eye(dim), lower=True).T
    centre = sums.sum(axis=0) / len(labels)
    white_means = (means - centre) @ whitening
    return (
        centre.astype(np.float32),
        whitening.astype(np.float32),
        white_means.astype(np.float32),
    )
