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
        means: (N, K_l) for each stage l, the mean of each channel over space; without the stage
            whose means are the features.
        maxima: (N, K_l) for each stage l, the maximum of each channel over space.
        neighbours: where the images lie in the Bank; None before `Bank.locate`.
    """

    logits: np.ndarray
    features: np.ndarray
    means: tuple[np.ndarray, ...] = ()
    maxima: tuple[np.ndarray, ...] = ()
    neighbours: Neighbours | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 2 or self.features.ndim != 2:
            raise ValueError(
                f"logits {self.logits.shape} and features {self.features.shape} must be matrices."
            )
        lengths = {len(part) for part in (self.logits, self.features, *self.means, *self.maxima)}
        if len(lengths) > 1:
            raise ValueError(f"logits, features, means and maxima differ in length: {lengths}.")

    def __len__(self) -> int:
        return len(self.logits)

    def take(self, rows: np.ndarray) -> Self:
        """Some of the images, without neighbours."""
        return type(self)(
            logits=self.logits[rows],
            features=self.features[rows],
            means=tuple(stage[rows] for stage in self.means),
            maxima=tuple(stage[rows] for stage in self.maxima),
        )

    def with_neighbours(self, neighbours: Neighbours) -> Self:
        """The same activations, placed in the Bank."""
        return replace(self, neighbours=neighbours)


def join_activations(parts: Sequence[Activations]) -> Activations:
    """Activations end to end; located in the Bank if all of them are."""
    neighbours = [part.neighbours for part in parts if part.neighbours is not None]
    return Activations(
        logits=np.concatenate([part.logits for part in parts]),
        features=np.concatenate([part.features for part in parts]),
        means=_join_stages([part.means for part in parts]),
        maxima=_join_stages([part.maxima for part in parts]),
        neighbours=Neighbours(
            rows=np.concatenate([n.rows for n in neighbours]),
            distances=np.concatenate([n.distances for n in neighbours]),
        )
        if len(neighbours) == len(parts)
        else None,
    )


def _join_stages(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(stage) for stage in zip(*parts, strict=True))


@dataclass(frozen=True)
class Head:
    """The classifier's last linear layer: logits = features @ weight.T + bias.

    Attributes:
        weight: (C, D) float32.
        bias: (C,) float32.
        divided: whether the network divides what this layer answers by a number of the image's
            own, before it is the logits; see `DecomposedHead`.
    """

    weight: np.ndarray
    bias: np.ndarray
    divided: bool = False
