"""The detector of a head that is made for it."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from models.activations import Activations
from models.bank import Bank, TuningSet
from ood.detectors.base import DetectorInfo, Paper


@dataclass(frozen=True)
class GeneralizedODIN:
    """-max_c h_c(z), for a network whose logits are h_c(z) / g(z) (equation 5 of the paper).

    The numerator alone, without g that says how familiar the image is, and without the paper's
    nudge of the input (that is `ood.gradient.ODIN`). Only for a `DecomposedHead`; of another head
    it would be the maximum logit.

    Attributes:
        weight: (C, D), of h.
        bias: (C,), of h.
    """

    weight: np.ndarray
    bias: np.ndarray
    info: ClassVar = DetectorInfo(
        name="godin",
        title="Generalized ODIN",
        question="Does little speak for any class, however familiar the image is?",
        consumes=frozenset({"features"}),
        kind="logits",
        paper=Paper(
            "Hsu, Shen, Jin and Kira", "CVPR", 2020,
            "Generalized ODIN: Detecting Out-of-Distribution Image without Learning from "
            "Out-of-Distribution Data",
            "https://arxiv.org/abs/2002.11297",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Only the head.

        Raises:
            ValueError: when the head is not decomposed.
        """
        if not bank.head.divided:
            raise ValueError("The network's head is not decomposed into h(z) / g(z).")
        return cls(bank.head.weight, bank.head.bias)

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, in units of h."""
        numerator = np.asarray(activations.features, np.float32) @ self.weight.T + self.bias
        return -numerator.max(axis=1)
