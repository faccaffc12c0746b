"""What one forward pass leaves behind."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Neighbours:
    """The nearest training images of N images, nearest first.

    Attributes:
        rows: (N, k) int64, rows of the Bank.
        distances: (N, k) float32, Euclidean between l2-normalised features, from 0 to 2.
    """

    rows: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class Activations:
    """N images as the classifier saw them: C classes, D penultimate features.

    Attributes:
        logits: (N, C).
        features: (N, D), the input of the last linear layer.
        channels: (N, K_l) for each stage l, the mean of each channel over space.
        neighbours: where the images lie in the Bank; None before `Bank.locate`.
    """

    logits: np.ndarray
    features: np.ndarray
    channels: tuple[np.ndarray, ...] = ()
    neighbours: Neighbours | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.features.ndim != 2:
            raise ValueError(
                f"logits {self.logits.shape} and features {self.features.shape} must be matrices."
            )
        lengths = {len(part) for part in (self.logits, self.features, *self.channels)}
        if len(lengths) > 1:
            raise ValueError(f"logits, features and channels differ in length: {lengths}.")

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, rows: np.ndarray) -> Self:
        """Some of the images, without neighbours."""
        channels = tuple(stage[rows] for stage in self.channels)
        return type(self)(self.logits[rows], self.features[rows], channels)

    def with_neighbours(self, neighbours: Neighbours) -> Self:
        """The same activations, placed in the Bank."""
        return replace(self, neighbours=neighbours)


def join_activations(parts: Sequence[Activations]) -> Activations:
    """Activations end to end; located in the Bank if all of them are."""
    neighbours = [part.neighbours for part in parts if part.neighbours is not None]
    return Activations(
        logits=np.concatenate([part.logits for part in parts]),
        features=np.concatenate([part.features for part in parts]),
        channels=tuple(
            np.concatenate(stage) for stage in zip(*(p.channels for p in parts), strict=True)
        ),
        neighbours=Neighbours(
            rows=np.concatenate([n.rows for n in neighbours]),
            distances=np.concatenate([n.distances for n in neighbours]),
        )
        if len(neighbours) == len(parts)
        else None,
    )


@dataclass(frozen=True)
class Head:
    """The classifier's last linear layer: logits = features @ weight.T + bias.

    Attributes:
        weight: (C, D) float32.
        bias: (C,) float32.
    """

    weight: np.ndarray
    bias: np.ndarray
