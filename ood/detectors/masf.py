"""MaSF: max-simes-fisher, a p-value for every channel of every layer of the network."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from models.activations import Activations
from models.bank import Bank, TuningSet
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.chunks import part, slices
from ood.quantiles import COARSE_LEVELS, LEVELS, QuantileTable

SMALLEST_NULL = 200
LARGEST_TABLE = 30_000_000  # numbers; 120 MB
EXCITING = 4
_COLUMNS = 128


@dataclass(frozen=True)
class ChannelEvidence:
    """Which layers and channels find N images odd: K channels in L layers.

    Attributes:
        channels: (N, K) p-value of each channel, two-sided.
        layers: (N, L) p-value of each layer.
        statistic: (N,) Fisher's statistic over the layers.
        p_values: (N,) its rarity among tuning images that are given the same class.
    """

    channels: np.ndarray
    layers: np.ndarray
    statistic: np.ndarray
    p_values: np.ndarray


@dataclass(frozen=True)
class MaSF:
    """How rare the channels' means and maxima are, for the class that the network gives.

    Every channel gets a two-sided p-value from the quantiles of the training images of the class;
    Simes joins those of a layer, min_i K p_(i) / i; Fisher joins the layers,
    T = -2 sum_l log p_l; and T becomes a p-value by its *empirical* distribution over held-out
    images that are given the class: layers depend on each other, so that chi-square would call
    three times as many normal images rare. A layer is a stage's means and maxima.

    Attributes:
        values: (G, K, Q) quantiles by class, or G = 1 where classes are too many for a table each.
        tails: (G, K, 2) see `QuantileTable`.
        sizes: (G,) training images behind each.
        layers: (L,) channels of each layer.
        null_values: (C, Q') quantiles of T by predicted class; of all where they are under 200.
        null_tails: (C, 2)
        null_sizes: (C,)
        exciting: (K, 4) rows of the training images that excite each channel most.
    """

    values: np.ndarray
    tails: np.ndarray
    sizes: np.ndarray
    layers: np.ndarray
    null_values: np.ndarray
    null_tails: np.ndarray
    null_sizes: np.ndarray
    exciting: np.ndarray
    info: ClassVar = DetectorInfo(
        name="masf",
        title="MaSF",
        question="Do channels of some layer answer as they never do for this class?",
        consumes=frozenset({"logits", "features", "means", "maxima"}),
        kind="layers",
        paper=Paper(
            "Haroush, Frostig, Heller and Soudry", "ICLR", 2022,
            "A Statistical Framework for Efficient Out of Distribution Detection in Deep Neural "
            "Networks",
            "https://arxiv.org/abs/2102.12967",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Quantiles by class over the Bank, the null distribution of T over the tuning set."""
        images = bank.images
        labels = np.asarray(images.labels)
        columns = list(_columns(images.activations))
        layers = np.array([sum(p.shape[1] for p in ps) for ps in _parts(images.activations)])
        width = int(layers.sum())
        single = bank.num_classes * width * len(COARSE_LEVELS) > LARGEST_TABLE
        groups = 1 if single else bank.num_classes
        values = np.zeros((groups, width, len(COARSE_LEVELS)), np.float32)
        tails, sizes = np.ones((groups, width, 2), np.float32), np.zeros(groups, np.int64)
        for group in range(groups):
            # A class without training images borrows the tables of all.
            rows = np.flatnonzero(labels == group) if not single else np.arange(len(labels))
            rows = rows if len(rows) else np.arange(len(labels))
            for first, some in columns:
                table = QuantileTable.fit(some[rows], COARSE_LEVELS)
                filled = slice(first, first + some.shape[1])
                values[group, filled], tails[group, filled] = table.values, table.tails
            sizes[group] = len(rows)
        exciting = np.concatenate([_largest(some) for _, some in columns])
        fitted = cls(
            values, tails, sizes, layers, np.zeros((0, 0)), np.zeros((0, 2)), np.zeros(0), exciting
        )
        null = fitted._null(bank.num_classes, tuning.activations)
        return cls(values, tails, sizes, layers, *null, exciting)

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32, -log of the p-value."""
        p_values = [self.explain(part(activations, r)).p_values for r in slices(len(activations))]
        return -np.log(np.concatenate(p_values)).astype(np.float32)

    def explain(self, activations: Activations) -> ChannelEvidence:
        """The p-values of channels and layers, and what follows from them."""
        channels, layers, statistic = self._evidence(activations)
        predicted = activations.logits.argmax(axis=1)
        p_values = np.empty(len(activations))
        for c in np.unique(predicted):
            null = QuantileTable(
                self.null_values[[c]], self.null_tails[[c]], int(self.null_sizes[c]), LEVELS
            )
            rows = predicted == c
            p_values[rows] = null.upper(statistic[rows, None])[:, 0]
        return ChannelEvidence(channels, layers, statistic, p_values)

    def _evidence(self, activations: Activations) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        numbers = np.concatenate(stack_layers(activations), axis=1, dtype=np.float32)
        predicted = activations.logits.argmax(axis=1)
        groups = predicted if len(self.values) > 1 else np.zeros(len(predicted), int)
        channels = np.empty(numbers.shape, np.float32)
        for group in np.unique(groups):
            table = QuantileTable(
                self.values[group], self.tails[group], int(self.sizes[group]), COARSE_LEVELS
            )
            channels[groups == group] = table.two_sided(numbers[groups == group])
        ends = np.cumsum(self.layers)[:-1]
        layers = np.stack([simes(layer) for layer in np.split(channels, ends, axis=1)], axis=1)
        statistic = -2 * np.log(np.maximum(layers, 1e-300)).sum(axis=1)
        return channels, layers, statistic

    def _null(
        self, num_classes: int, held_out: Activations
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chunks = [self._evidence(part(held_out, r))[2] for r in slices(len(held_out))]
        statistic = np.concatenate(chunks)[:, None]
        predicted = held_out.logits.argmax(axis=1)
        nulls = []
        for c in range(num_classes):
            own = statistic[predicted == c]
            nulls.append(QuantileTable.fit(own if len(own) >= SMALLEST_NULL else statistic))
        return (
            np.concatenate([null.values for null in nulls]),
            np.concatenate([null.tails for null in nulls]),
            np.array([null.size for null in nulls]),
        )


def stack_layers(activations: Activations) -> list[np.ndarray]:
    """Each stage's means and maxima side by side, then the features: L of (N, K_l)."""
    return [np.concatenate(parts, axis=1) for parts in _parts(activations)]


def _parts(activations: Activations) -> list[list[np.ndarray]]:
    # The last stage's means may be the features, and are then not kept twice.
    stages = [
        [*activations.means[stage : stage + 1], maxima]
        for stage, maxima in enumerate(activations.maxima)
    ]
    return [*stages, [activations.features]]


def _columns(activations: Activations) -> Iterator[tuple[int, np.ndarray]]:
    """Some columns at a time of all layers end to end, with the number of the first."""
    number = 0
    for parts in _parts(activations):
        for layer in parts:
            for start in range(0, layer.shape[1], _COLUMNS):
                chunk = layer[:, start : start + _COLUMNS]
                yield number, chunk
                number += chunk.shape[1]


def simes(p_values: np.ndarray) -> np.ndarray:
    """(N, K) to (N,): min_i K p_(i) / i, valid for independent and for alike p-values.

    Simes (Biometrika, 1986).
    """
    ordered = np.sort(p_values, axis=1)
    size = ordered.shape[1]
    return (ordered * (size / np.arange(1, size + 1))).min(axis=1)


def _largest(layer: np.ndarray) -> np.ndarray:
    """(N, K) to (K, 4) rows of the largest numbers of each column, the largest first."""
    count = min(EXCITING, len(layer))
    rows = np.argsort(np.asarray(layer, np.float32), axis=0)[::-1][:count].T
    return np.pad(rows, ((0, 0), (0, EXCITING - count)), mode="edge").astype(np.int64)
