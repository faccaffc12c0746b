"""Detectors that read the penultimate features. z are features of D numbers, f logits."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import eigh
from scipy.special import logsumexp

from models.activations import Activations
from models.bank import NEIGHBOURS, Bank
from ood.detectors.base import DetectorInfo, Paper

_CHUNK = 16_384


@dataclass(frozen=True)
class KNN:
    """Distance of z/|z| to the k-th nearest training image's.

    Attributes:
        k: 50, as the paper has for CIFAR-10; the Bank's size when that is smaller.
    """

    k: int
    info: ClassVar = DetectorInfo(
        name="knn",
        title="Nearest neighbours",
        question="Are even the most similar training images far away?",
        consumes=frozenset({"neighbours"}),
        paper=Paper(
            "Sun, Ming, Zhu and Li", "ICML", 2022,
            "Out-of-Distribution Detection with Deep Nearest Neighbors",
            "https://arxiv.org/abs/2204.06507",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank) -> Self:
        """Only k; the Bank itself is the model."""
        return cls(k=min(NEIGHBOURS, len(bank.images)))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, Euclidean distance between unit vectors, from 0 to 2."""
        if activations.neighbours is None:
            raise ValueError("These activations have no neighbours yet; call Bank.locate first.")
        return activations.neighbours.distances[:, self.k - 1].astype(np.float32)


@dataclass(frozen=True)
class ViM:
    """Virtual-logit matching: alpha |R'(z - u)| - log sum_c exp f_c.

    u = -W^+ b is where the head answers nothing, R spans the directions in which training
    features hardly move, alpha scales the residual to the size of a largest logit.

    Attributes:
        origin: (D,), u.
        residual: (D, D - P), R; P principal directions are left out.
        alpha: mean largest logit over mean residual, on the Bank.
    """

    origin: np.ndarray
    residual: np.ndarray
    alpha: float
    info: ClassVar = DetectorInfo(
        name="vim",
        title="Virtual logit",
        question="Does it move features that training images leave still?",
        consumes=frozenset({"features", "logits"}),
        paper=Paper(
            "Wang, Li, Feng and Zhang", "CVPR", 2022,
            "ViM: Out-Of-Distribution with Virtual-logit Matching",
            "https://arxiv.org/abs/2203.10807",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank) -> Self:
        """Principal directions of z - u over the Bank, not centred, in float64."""
        features = bank.images.activations.features
        dim = features.shape[1]
        weight, bias = (np.asarray(a, np.float64) for a in (bank.head.weight, bank.head.bias))
        origin = -np.linalg.pinv(weight) @ bias
        products = np.zeros((dim, dim))
        for start in range(0, len(features), _CHUNK):
            centred = features[start : start + _CHUNK] - origin
            products += centred.T @ centred
        kept = cls.principal_dimensions(dim)
        residual = eigh(products)[1][:, : dim - kept]  # eigenvalues ascend: the still directions
        fitted = cls(origin.astype(np.float32), residual.astype(np.float32), alpha=1.0)
        largest = np.asarray(bank.images.activations.logits, np.float32).max(axis=1).mean()
        norms = [
            fitted.residual_norm(features[start : start + _CHUNK])
            for start in range(0, len(features), _CHUNK)
        ]
        norm = np.concatenate(norms).mean()
        alpha = float(max(largest, 0) / max(norm, np.finfo(np.float32).tiny))
        return cls(origin=fitted.origin, residual=fitted.residual, alpha=alpha)

    @staticmethod
    def principal_dimensions(dim: int) -> int:
        """P for D features, as the paper chooses: 1000, 512, or half."""
        if dim >= 2048:
            return 1000
        return 512 if dim >= 768 else dim // 2

    def residual_norm(self, features: np.ndarray) -> np.ndarray:
        """(N, D) to (N,) float32: |R'(z - u)|."""
        centred = np.asarray(features, np.float32) - self.origin
        return np.linalg.norm(centred @ self.residual, axis=1)

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in logits."""
        energy = logsumexp(np.asarray(activations.logits, np.float64), axis=1)
        score = self.alpha * self.residual_norm(activations.features) - energy
        return score.astype(np.float32)
