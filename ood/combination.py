"""Several detectors' opinions as one, each a p-value first so that scales do not matter."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.masf import simes
from ood.quantiles import LEVELS, QuantileTable

# One of each kind of evidence: the distance over all layers, the distance beyond what all
# images have in common, the logits, and single channels.
MEMBERS = ("layers", "maxima", "energy", "masf")
_SMALLEST_P = 1e-300


def _fisher(p: np.ndarray) -> np.ndarray:
    return -np.log(p).sum(axis=1)


def _simes(p: np.ndarray) -> np.ndarray:
    return -np.log(simes(p))


def _harmonic(p: np.ndarray) -> np.ndarray:
    return np.log(np.mean(1 / p, axis=1))


@dataclass(frozen=True)
class Combination:
    """M p-values joined into one score."""

    info: DetectorInfo
    join: Callable[[np.ndarray], np.ndarray]


COMBINATIONS = {
    "fisher": Combination(
        DetectorInfo(
            name="fisher",
            title="Four together (Fisher)",
            question="Do distance, logits and channels together find it odd?",
            consumes=frozenset({"logits", "features", "means", "maxima"}),
            kind="joined",
            paper=Paper(
                "after Fisher", "The American Statistician", 1948,
                "Answer to Question 14 on Combining Independent Tests of Significance",
                "https://doi.org/10.2307/2681650",
            ),
        ),
        _fisher,
    ),
    "simes": Combination(
        DetectorInfo(
            name="simes",
            title="Four together (Simes)",
            question="Does at least one of distance, logits and channels find it very odd?",
            consumes=frozenset({"logits", "features", "means", "maxima"}),
            kind="joined",
            paper=Paper(
                "Simes", "Biometrika", 1986,
                "An Improved Bonferroni Procedure for Multiple Tests of Significance",
                "https://doi.org/10.1093/biomet/73.3.751",
            ),
        ),
        _simes,
    ),
    "harmonic": Combination(
        DetectorInfo(
            name="harmonic",
            title="Four together (harmonic mean)",
            question="Do the oddest of distance, logits and channels outweigh the others?",
            consumes=frozenset({"logits", "features", "means", "maxima"}),
            kind="joined",
            paper=Paper(
                "Wilson", "PNAS", 2019,
                "The Harmonic Mean p-Value for Combining Dependent Tests",
                "https://doi.org/10.1073/pnas.1814092116",
            ),
        ),
        _harmonic,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Combiner:
    """What the members' scores mean, learned on held-out images.

    Fisher's -sum log p has no chi-square law here, since the members depend on each other; none
    is used: like any score it gets its p-value from a calibration set.

    Attributes:
        values: (M, Q) quantiles of each member's score over the tuning set.
        tails: (M, 2) see `QuantileTable`.
        size: of the tuning set.
    """

    values: np.ndarray
    tails: np.ndarray
    size: int

    @classmethod
    def fit(cls, tuning_scores: Mapping[str, np.ndarray]) -> Self:
        """From the members' scores on the tuning set."""
        table = QuantileTable.fit(np.stack([tuning_scores[m] for m in MEMBERS], axis=1))
        return cls(table.values, table.tails, table.size)

    def p_values(self, scores: Mapping[str, np.ndarray]) -> np.ndarray:
        """(N, M): how rare each member's score is among the tuning images."""
        table = QuantileTable(self.values, self.tails, self.size, LEVELS)
        stacked = np.stack([scores[m] for m in MEMBERS], axis=1)
        return np.maximum(table.upper(stacked), _SMALLEST_P)

    def score(self, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Each combination's (N,) float32 score; larger means more outlying."""
        p = self.p_values(scores).astype(np.float64)
        return {name: c.join(p).astype(np.float32) for name, c in COMBINATIONS.items()}
