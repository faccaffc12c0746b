"""What is found about a batch of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from explain.influence import Influences
from models.activations import Activations, join_activations


@dataclass(frozen=True)
class Inspection:
    """N images inspected: C classes.

    Attributes:
        activations: what the pass left behind, with neighbours.
        predicted: (N,) index of the largest logit.
        confidence: (N,) calibrated probability of that class.
        scores: detector name to (N,) float32; larger means more outlying.
        p_values: detector name to (N,) conformal p-values.
        places: (N, 2) on the map.
        influences: of each image; None when they were not asked for or cannot be had.
    """

    activations: Activations
    predicted: np.ndarray
    confidence: np.ndarray
    scores: dict[str, np.ndarray]
    p_values: dict[str, np.ndarray]
    places: np.ndarray
    influences: list[Influences] | None = None

    def __len__(self) -> int:
        return len(self.predicted)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Inspections of one workspace, end to end; without influences."""
        return cls(
            activations=join_activations([part.activations for part in parts]),
            predicted=np.concatenate([part.predicted for part in parts]),
            confidence=np.concatenate([part.confidence for part in parts]),
            scores={n: np.concatenate([p.scores[n] for p in parts]) for n in parts[0].scores},
            p_values={n: np.concatenate([p.p_values[n] for p in parts]) for n in parts[0].p_values},
            places=np.concatenate([part.places for part in parts]),
        )
