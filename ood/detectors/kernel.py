"""A detector that looks for structure that is linear only after a kernel."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import eigh

from models.activations import Activations
from models.bank import Bank, TuningSet, normalise_rows
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.chunks import by_chunk, slices


@dataclass(frozen=True)
class CoRP:
    """|(1 - U U')(phi(n) - mu)|: what kernel PCA cannot reconstruct of n = z/|z|.

    phi(n) = sqrt(2/M) cos(n'w + b) are M random Fourier features of a Gaussian kernel,
    w ~ N(0, 2 gamma), b ~ U(0, 2 pi); U are the principal directions that explain a given part
    of the training images' variance. M, gamma and the part are the authors' for CIFAR-10 with
    ordinary training; for ImageNet they take 4,096, 3 and 0.5.

    Attributes:
        frequencies: (D, M), w.
        phases: (M,), b.
        centre: (M,), mu.
        principal: (M, q), U.
    """

    COMPONENTS: ClassVar = 2_048
    GAMMA: ClassVar = 2.0
    EXPLAINED: ClassVar = 0.8
    frequencies: np.ndarray
    phases: np.ndarray
    centre: np.ndarray
    principal: np.ndarray
    info: ClassVar = DetectorInfo(
        name="corp",
        title="Kernel PCA",
        question="Can it not be put together from what training images have in common?",
        consumes=frozenset({"features"}),
        kind="distance",
        paper=Paper(
            "Fang, Tao, Lv, He, Huang and Yang", "NeurIPS", 2024,
            "Kernel PCA for Out-of-Distribution Detection",
            "https://arxiv.org/abs/2402.02949",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Random features, the same each time, and their principal directions over the Bank."""
        features = bank.images.activations.features
        rng = np.random.default_rng(0)
        width = (features.shape[1], cls.COMPONENTS)
        frequencies = rng.normal(0, np.sqrt(2 * cls.GAMMA), width).astype(np.float32)
        phases = rng.uniform(0, 2 * np.pi, cls.COMPONENTS).astype(np.float32)
        sums, products = np.zeros(cls.COMPONENTS), np.zeros((cls.COMPONENTS, cls.COMPONENTS))
        for rows in slices(len(features)):
            mapped = _fourier(features[rows], frequencies, phases)
            sums += mapped.sum(axis=0, dtype=np.float64)
            products += mapped.T @ mapped
        centre = sums / len(features)
        products -= len(features) * np.outer(centre, centre)
        variances, directions = eigh(products, overwrite_a=True)
        explained = np.cumsum(variances[::-1])
        kept = 1 + int(np.searchsorted(explained, cls.EXPLAINED * explained[-1]))
        principal = directions[:, ::-1][:, :kept].astype(np.float32)
        return cls(frequencies, phases, centre.astype(np.float32), np.ascontiguousarray(principal))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, from 0 to about 1."""
        return by_chunk(self._score, activations)

    def _score(self, activations: Activations) -> np.ndarray:
        centred = _fourier(activations.features, self.frequencies, self.phases) - self.centre
        # By Pythagoras; safe in float32, for a fifth of the variance is left by choice.
        explained = np.square(centred @ self.principal).sum(axis=1)
        left = np.square(centred).sum(axis=1) - explained
        return np.sqrt(np.maximum(left, 0))


def _fourier(features: np.ndarray, frequencies: np.ndarray, phases: np.ndarray) -> np.ndarray:
    mapped = normalise_rows(features) @ frequencies
    mapped += phases
    np.cos(mapped, out=mapped)
    mapped *= np.float32(np.sqrt(2 / len(phases)))
    return mapped
