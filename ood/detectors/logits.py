"""Detectors that read the logits: no fit, almost no cost. f are C logits, p their softmax."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.special import entr, logsumexp, softmax

from models.activations import Activations
from models.bank import Bank, TuningSet
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.chunks import by_chunk


@dataclass(frozen=True)
class MSP:
    """Maximum softmax probability: -max_c p_c."""

    info: ClassVar = DetectorInfo(
        name="msp",
        title="Softmax confidence",
        question="Is the network torn between classes?",
        consumes=frozenset({"logits"}),
        kind="logits",
        paper=Paper(
            "Hendrycks and Gimpel", "ICLR", 2017,
            "A Baseline for Detecting Misclassified and Out-of-Distribution Examples",
            "https://arxiv.org/abs/1610.02136",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Nothing to learn."""
        return cls()

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32 in [-1, -1/C]."""
        p = softmax(np.asarray(activations.logits, np.float64), axis=1)
        return -p.max(axis=1).astype(np.float32)


@dataclass(frozen=True)
class Energy:
    """Free energy at temperature 1: -log sum_c exp f_c (equation 4)."""

    info: ClassVar = DetectorInfo(
        name="energy",
        title="Energy",
        question="Is the evidence for all classes together weak?",
        consumes=frozenset({"logits"}),
        kind="logits",
        paper=Paper(
            "Liu, Wang, Owens and Li", "NeurIPS", 2020,
            "Energy-based Out-of-distribution Detection",
            "https://arxiv.org/abs/2010.03759",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Nothing to learn."""
        return cls()

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in logits."""
        return by_chunk(self._score, activations)

    def _score(self, activations: Activations) -> np.ndarray:
        return -logsumexp(np.asarray(activations.logits, np.float64), axis=1)


@dataclass(frozen=True)
class GEN:
    """Generalised entropy of the M largest probabilities: sum_c p_c^g (1 - p_c)^g."""

    EXPONENT: ClassVar = 0.1
    LARGEST: ClassVar = 100
    info: ClassVar = DetectorInfo(
        name="gen",
        title="Generalised entropy",
        question="Are the class probabilities spread out, even slightly?",
        consumes=frozenset({"logits"}),
        kind="logits",
        paper=Paper(
            "Liu, Lochman and Zach", "CVPR", 2023,
            "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection",
            "https://openaccess.thecvf.com/content/CVPR2023/html/"
            "Liu_GEN_Pushing_the_Limits_of_Softmax-Based_Out-of-Distribution_Detection_"
            "CVPR_2023_paper.html",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Nothing to learn."""
        return cls()

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, from 0 (certain) up."""
        p = softmax(np.asarray(activations.logits, np.float64), axis=1)
        if p.shape[1] > self.LARGEST:
            p = np.partition(p, -self.LARGEST, axis=1)[:, -self.LARGEST :]
        return np.sum((p * (1 - p)) ** self.EXPONENT, axis=1).astype(np.float32)


@dataclass(frozen=True)
class MaxLogit:
    """Maximum logit: -max_c f_c.

    The same score is in Vaze, Han, Vedaldi and Zisserman (ICLR 2022).
    """

    info: ClassVar = DetectorInfo(
        name="maxlogit",
        title="Maximum logit",
        question="Is the evidence for its own class weak?",
        consumes=frozenset({"logits"}),
        kind="logits",
        paper=Paper(
            "Hendrycks, Basart, Mazeika, Zou, Kwon, Mostajabi, Steinhardt and Song", "ICML", 2022,
            "Scaling Out-of-Distribution Detection for Real-World Settings",
            "https://arxiv.org/abs/1911.11132",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Nothing to learn."""
        return cls()

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in logits."""
        return -activations.logits.max(axis=1).astype(np.float32)


@dataclass(frozen=True)
class Entropy:
    """Entropy of the softmax: -sum_c p_c log p_c."""

    info: ClassVar = DetectorInfo(
        name="entropy",
        title="Entropy",
        question="Are the class probabilities spread out?",
        consumes=frozenset({"logits"}),
        kind="logits",
        paper=Paper(
            "Chan, Rottmann and Gottschalk", "ICCV", 2021,
            "Entropy Maximization and Meta Classification for Out-of-Distribution Detection in "
            "Semantic Segmentation",
            "https://arxiv.org/abs/2012.06575",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Nothing to learn."""
        return cls()

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in nats, from 0 to log C."""
        p = softmax(np.asarray(activations.logits, np.float64), axis=1)
        return entr(p).sum(axis=1).astype(np.float32)
