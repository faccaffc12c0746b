"""Detectors that reshape the features or the head, and score the logits that follow.

z are features of D numbers, W and b the head. `apply` gives activations with the new logits, on
which any score of logits may be computed; the detectors themselves take the free energy.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from models.activations import Activations
from models.bank import Bank, TuningSet
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.chunks import by_chunk, mean_row
from ood.detectors.exact_quantile import exact_quantile
from ood.detectors.logits import Energy


@dataclass(frozen=True)
class _Shaping:
    """A linear head behind a reshaping of the features.

    Attributes:
        weight: (C, D).
        bias: (C,).
    """

    weight: np.ndarray
    bias: np.ndarray

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """The head as it is."""
        return cls(weight=bank.head.weight, bias=bank.head.bias)

    def shape(self, features: np.ndarray) -> np.ndarray:
        """(N, D) float32 to the same, reshaped."""
        return features

    def apply(self, activations: Activations) -> Activations:
        """The same activations, with logits (N, C) of the reshaped features."""
        shaped = self.shape(np.asarray(activations.features, np.float32))
        return replace(activations, logits=shaped @ self.weight.T + self.bias)

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in logits."""
        return by_chunk(lambda some: Energy().score(self.apply(some)), activations)


@dataclass(frozen=True)
class ReAct(_Shaping):
    """Rectified activations: energy of W min(z, t) + b.

    Attributes:
        threshold: t, the 90th percentile of all activations on the Bank.
    """

    PERCENTILE: ClassVar = 0.9
    threshold: float
    info: ClassVar = DetectorInfo(
        name="react",
        title="ReAct",
        question="Is the evidence weak once no feature may be larger than usual?",
        consumes=frozenset({"features"}),
        kind="shaped",
        paper=Paper(
            "Sun, Guo and Li", "NeurIPS", 2021,
            "ReAct: Out-of-distribution Detection With Rectified Activations",
            "https://arxiv.org/abs/2111.12797",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """The threshold, over the Bank."""
        threshold = exact_quantile(bank.images.activations.features, cls.PERCENTILE)
        return cls(bank.head.weight, bank.head.bias, threshold)

    def shape(self, features: np.ndarray) -> np.ndarray:
        """(N, D) float32 to the same, clipped from above."""
        return np.minimum(features, np.float32(self.threshold))


@dataclass(frozen=True)
class ASH(_Shaping):
    """Activation shaping, ASH-S: energy of W (z kept) exp(s1/s2) + b.

    The largest tenth of each image's features are kept and the others zero; s1 is the sum before,
    s2 after. The paper has features behind a ReLU; of others, what is negative counts as pruned.
    """

    PERCENTILE: ClassVar = 0.9
    info: ClassVar = DetectorInfo(
        name="ash",
        title="ASH",
        question="Is the evidence weak once only the strongest features are kept?",
        consumes=frozenset({"features"}),
        kind="shaped",
        paper=Paper(
            "Djurisic, Bozanic, Ashok and Liu", "ICLR", 2023,
            "Extremely Simple Activation Shaping for Out-of-Distribution Detection",
            "https://arxiv.org/abs/2209.09858",
        ),
    )  # fmt: skip

    def shape(self, features: np.ndarray) -> np.ndarray:
        """(N, D) float32 to the same, pruned and scaled."""
        largest = _largest(features, self.PERCENTILE)
        kept = np.where(features >= largest.min(axis=1, keepdims=True), features, 0)
        return np.maximum(kept, 0) * _stretch(features, largest)


@dataclass(frozen=True)
class SCALE(_Shaping):
    """Energy of W z exp(s1/s2) + b: s1 the sum of z, s2 that of its largest 15%.

    The paper has features behind a ReLU; of others, the sums leave out what is negative.
    """

    PERCENTILE: ClassVar = 0.85
    info: ClassVar = DetectorInfo(
        name="scale",
        title="SCALE",
        question="Is the evidence weak, and spread over many features?",
        consumes=frozenset({"features"}),
        kind="shaped",
        paper=Paper(
            "Xu, Chen, Franchi and Yao", "ICLR", 2024,
            "Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement",
            "https://arxiv.org/abs/2310.00227",
        ),
    )  # fmt: skip

    def shape(self, features: np.ndarray) -> np.ndarray:
        """(N, D) float32 to the same, scaled."""
        return features * _stretch(features, _largest(features, self.PERCENTILE))


@dataclass(frozen=True)
class DICE(_Shaping):
    """Energy of (M * W) z + b: M keeps the tenth of weights that contribute most.

    The contribution of weight w_cd is w_cd E[z_d], by the mean over the Bank. `weight` is M * W.
    """

    SPARSITY: ClassVar = 0.9
    info: ClassVar = DetectorInfo(
        name="dice",
        title="DICE",
        question="Is the evidence weak once only the weights that matter are kept?",
        consumes=frozenset({"features"}),
        kind="shaped",
        paper=Paper(
            "Sun and Li", "ECCV", 2022,
            "DICE: Leveraging Sparsification for Out-of-Distribution Detection",
            "https://arxiv.org/abs/2111.09805",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """The head, sparse."""
        weight = bank.head.weight
        contributions = weight * mean_row(bank.images.activations.features)
        kept = contributions > np.quantile(contributions, cls.SPARSITY)
        return cls(weight=np.where(kept, weight, 0), bias=bank.head.bias)


def _largest(features: np.ndarray, percentile: float) -> np.ndarray:
    """(N, D) to (N, k), each row's largest, k = D - round(percentile D) and at least 1."""
    count = max(features.shape[1] - round(features.shape[1] * percentile), 1)
    return np.partition(features, -count, axis=1)[:, -count:]


def _stretch(features: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """(N, 1), exp(s1/s2); s1/s2 is between 1 and D/k, and 1 for features without positive ones."""
    before = np.maximum(features, 0).sum(axis=1, keepdims=True)
    after = np.maximum(largest, 0).sum(axis=1, keepdims=True)
    return np.exp(np.divide(before, after, out=np.ones_like(before), where=after > 0))
