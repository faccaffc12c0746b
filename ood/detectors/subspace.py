"""Detectors that ask how far the features leave the subspace that training images span.

z are features of D numbers, f logits, W and b the head. u = -W^+ b is where the head answers
nothing.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import eigh

from models.activations import Activations, Head
from models.bank import Bank, TuningSet
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.chunks import by_chunk, mean_row, slices
from ood.detectors.logits import Energy


def principal_dimensions(dim: int) -> int:
    """P for D features, as the paper of ViM chooses: 1000, 512, or half."""
    if dim >= 2048:
        return 1000
    return 512 if dim >= 768 else dim // 2


def still_directions(features: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(N, D) and u to (D, D - P) float32: the principal directions of z - u but the first P.

    Not centred, as in the paper: about u, not about the mean. Products are taken about the mean
    all the same and moved to u in float64, for in float32 the mean would drown the directions
    in which little moves.
    """
    dim = features.shape[1]
    mean = mean_row(features)
    near, products = mean.astype(np.float32), np.zeros((dim, dim))
    for rows in slices(len(features)):
        centred = np.asarray(features[rows], np.float32) - near
        products += centred.T @ centred
    products += len(features) * np.outer(mean - origin, mean - origin)
    last = dim - principal_dimensions(dim) - 1  # eigenvalues ascend: still ones first
    return eigh(products, subset_by_index=(0, last))[1].astype(np.float32, order="C")


def null_point(head: Head) -> np.ndarray:
    """(D,) float64, u.

    Weight decay leaves sum_c w_c next to zero, and W without full rank but for its float32
    rounding; what is below that counts as zero, or u would be as long as 1/rounding.
    """
    rounding = float(np.finfo(np.float32).eps) * max(head.weight.shape)
    inverse = np.linalg.pinv(np.asarray(head.weight, np.float64), rcond=rounding)
    return -inverse @ np.asarray(head.bias, np.float64)


@dataclass(frozen=True)
class Residual:
    """|R'(z - u)|, R the directions in which training features hardly move.

    Attributes:
        origin: (D,), u.
        residual: (D, D - P), R; P principal directions are left out.
    """

    origin: np.ndarray
    residual: np.ndarray
    info: ClassVar = DetectorInfo(
        name="residual",
        title="Residual",
        question="How much does it move features that training images leave still?",
        consumes=frozenset({"features"}),
        kind="distance",
        paper=Paper(
            "Wang, Li, Feng and Zhang", "CVPR", 2022,
            "ViM: Out-Of-Distribution with Virtual-logit Matching",
            "https://arxiv.org/abs/2203.10807",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Principal directions of z - u over the Bank."""
        origin = null_point(bank.head)
        still = still_directions(bank.images.activations.features, origin)
        return cls(origin=origin.astype(np.float32), residual=still)

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, length in features."""
        return by_chunk(self._score, activations)

    def _score(self, activations: Activations) -> np.ndarray:
        inside = (activations.features - self.origin) @ self.residual
        return np.sqrt(np.einsum("nd,nd->n", inside, inside))


@dataclass(frozen=True)
class ViM:
    """Virtual-logit matching: alpha |R'(z - u)| - log sum_c exp f_c.

    Attributes:
        origin: (D,), u.
        residual: (D, D - P), R as in `Residual`.
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
        kind="joined",
        paper=Residual.info.paper,
    )

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """The residual, and its scale among the logits."""
        residual = Residual.fit(bank, tuning)
        images = bank.images.activations
        norm = residual.score(images).mean(dtype=np.float64)
        largest = np.mean(images.logits.max(axis=1), dtype=np.float64)
        alpha = float(max(largest, 0) / max(norm, np.finfo(np.float32).tiny))
        return cls(origin=residual.origin, residual=residual.residual, alpha=alpha)

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in logits."""
        residual = Residual(self.origin, self.residual).score(activations)
        return np.float32(self.alpha) * residual + Energy().score(activations)
