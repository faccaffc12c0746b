"""Detectors that ask the nearest training images. n stands for unit features z/|z|."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from models.activations import Activations
from models.bank import NEIGHBOURS, Bank, TuningSet, normalise_rows
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.chunks import by_chunk
from ood.detectors.logits import Energy


@dataclass(frozen=True)
class KNN:
    """Distance of n to the k-th nearest training image's.

    Attributes:
        k: 50, as the paper has for CIFAR-10; the Bank's size when that is smaller.
    """

    k: int
    info: ClassVar = DetectorInfo(
        name="knn",
        title="Nearest neighbours",
        question="Are even the most similar training images far away?",
        consumes=frozenset({"neighbours"}),
        kind="distance",
        paper=Paper(
            "Sun, Ming, Zhu and Li", "ICML", 2022,
            "Out-of-Distribution Detection with Deep Nearest Neighbors",
            "https://arxiv.org/abs/2204.06507",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Only k; the Bank itself is the model."""
        return cls(k=min(NEIGHBOURS, len(bank.images)))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, Euclidean distance between unit vectors, from 0 to 2."""
        if activations.neighbours is None:
            raise ValueError("These activations have no neighbours yet; call Bank.locate first.")
        return activations.neighbours.distances[:, self.k - 1].astype(np.float32)


@dataclass(frozen=True)
class NNGuide:
    """-e(z) mean_i e_i n'n_i over the k training images with the largest e_i n'n_i.

    e = log sum_c exp f_c is the energy of an image's logits f. As in the paper, the training
    images are a random part of the Bank: at most 5,000, so that this costs a tenth of an exact
    search among 50,000.

    Attributes:
        scaled: (M, D), e_i n_i.
        k: 10, as the authors' code has; M when that is smaller.
    """

    SAMPLE: ClassVar = 5_000
    K: ClassVar = 10
    QUERIES: ClassVar = 256
    scaled: np.ndarray
    k: int
    info: ClassVar = DetectorInfo(
        name="nnguide",
        title="Guided energy",
        question="Is the evidence for all classes weak, or unlike that of similar images?",
        consumes=frozenset({"features", "logits"}),
        kind="joined",
        paper=Paper(
            "Park, Jung and Teoh", "ICCV", 2023,
            "Nearest Neighbor Guidance for Out-of-Distribution Detection",
            "https://arxiv.org/abs/2309.14888",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """A sample of the Bank, the same each time."""
        images = bank.images.activations.take(sample_rows(len(bank.images), cls.SAMPLE))
        scaled = -normalise_rows(images.features) * Energy().score(images)[:, None]
        return cls(scaled=scaled, k=min(cls.K, len(scaled)))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in squared logits."""
        return by_chunk(self._score, activations, self.QUERIES)

    def _score(self, activations: Activations) -> np.ndarray:
        similarity = normalise_rows(activations.features) @ self.scaled.T
        similarity.partition(similarity.shape[1] - self.k, axis=1)
        return similarity[:, -self.k :].mean(axis=1) * Energy().score(activations)


def sample_rows(length: int, size: int) -> np.ndarray:
    """At most `size` of `length` rows, ascending; the same ones each time."""
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(length, min(size, length), replace=False))
