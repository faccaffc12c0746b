"""Detectors that read the logits and learn from the tuning set. f are C logits, p their softmax.

Both need images that the network was not trained on: on training images it is too sure.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from scipy.special import log_softmax, logsumexp

from models.activations import Activations
from models.bank import Bank, TuningSet
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.logits import MaxLogit
from ood.temperature import fit_temperature, probabilities


@dataclass(frozen=True)
class TemperatureMSP:
    """Maximum softmax probability at a calibrated temperature: -max_c softmax(f / T)_c.

    Attributes:
        temperature: T, which minimises the tuning set's negative log-likelihood.
    """

    temperature: float
    info: ClassVar = DetectorInfo(
        name="temperature",
        title="Calibrated confidence",
        question="Is the network torn between classes, once it is no surer than it is right?",
        consumes=frozenset({"logits"}),
        kind="logits",
        paper=Paper(
            "Guo, Pleiss, Sun and Weinberger", "ICML", 2017,
            "On Calibration of Modern Neural Networks",
            "https://arxiv.org/abs/1706.04599",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """T, by the tuning set's logits and labels."""
        images = tuning.images
        return cls(temperature=fit_temperature(images.activations.logits, images.labels))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32 in [-1, -1/C]."""
        p = probabilities(activations.logits, self.temperature)
        return -p.max(axis=1).astype(np.float32)


@dataclass(frozen=True)
class KLMatching:
    """min_k KL(p || d_k), d_k the mean p of the tuning images that are predicted to be k.

    Attributes:
        log_typical: (K, C), log d_k, for the K classes that some tuning image is predicted to be.
    """

    log_typical: np.ndarray
    info: ClassVar = DetectorInfo(
        name="kl-matching",
        title="KL matching",
        question="Is the network unsure in another way than it usually is?",
        consumes=frozenset({"logits"}),
        kind="logits",
        paper=MaxLogit.info.paper,
    )

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Mean probabilities, in logarithms, where none is zero."""
        log_p = log_softmax(np.asarray(tuning.images.activations.logits, np.float64), axis=1)
        predicted = log_p.argmax(axis=1)
        typical = [
            logsumexp(log_p[predicted == k], axis=0) - np.log(np.sum(predicted == k))
            for k in np.unique(predicted)
        ]
        return cls(log_typical=np.array(typical, np.float32))

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in nats, from 0 up."""
        log_p = log_softmax(np.asarray(activations.logits, np.float64), axis=1)
        p = np.exp(log_p)
        cross = p @ self.log_typical.astype(np.float64).T
        divergence = np.einsum("nc,nc->n", p, log_p) - cross.max(axis=1)
        return np.maximum(divergence, 0).astype(np.float32)
