"""Distributions kept as quantiles, to say how rare a number is among numbers seen."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import expit

# Evenly spaced on the logit scale, so that the tails are as finely kept as the middle.
LEVELS = np.concatenate([[0.0], expit(np.linspace(-7.5, 7.5, 61)), [1.0]])
COARSE_LEVELS = np.concatenate([[0.0], expit(np.linspace(-7, 7, 27)), [1.0]])
# An upper p-value times (size + 1) is at least 1 up to the largest number seen, and float32 keeps
# seven digits of it; a two-sided one is twice that.
BEYOND = 1 - 1e-5
_TAIL_SHARE = 0.05
_CHUNK = 1 << 22  # numbers compared at once


@dataclass(frozen=True)
class QuantileTable:
    """K distributions, each known by its quantiles and by how fast its tails fall off.

    Beyond the smallest and the largest number seen, p-values go on falling exponentially with
    the mean excess over the outer 5%, so that far and farther remain apart.

    Attributes:
        values: (K, Q) float32, ascending: the quantiles at `levels`.
        tails: (K, 2) float32, mean excess of the lower and of the upper tail; positive.
        size: how many numbers each distribution was made from.
        levels: (Q,), from 0 to 1.
    """

    values: np.ndarray
    tails: np.ndarray
    size: int
    levels: np.ndarray

    @classmethod
    def fit(cls, numbers: np.ndarray, levels: np.ndarray = LEVELS) -> Self:
        """(n, K) numbers to K distributions; n >= 1."""
        numbers = np.asarray(numbers, np.float32)
        ordered = np.sort(numbers, axis=0)
        n = len(ordered)
        position = levels * (n - 1)
        below = np.floor(position).astype(int)
        above = np.minimum(below + 1, n - 1)
        share = (position - below)[:, None]
        values = ordered[below] * (1 - share) + ordered[above] * share
        outer = max(1, round(_TAIL_SHARE * n))
        inner = min(outer, n - 1)
        lower = ordered[inner] - ordered[:outer].mean(axis=0)
        upper = ordered[n - outer :].mean(axis=0) - ordered[n - 1 - inner]
        # A number that never varies has no scale of its own; any change of it is rare.
        smallest = 1e-6 * np.maximum(np.abs(ordered[-1]), np.abs(ordered[0])) + 1e-12
        tails = np.maximum(np.stack([lower, upper], axis=1), smallest[:, None])
        return cls(values.T.astype(np.float32), tails.astype(np.float32), n, levels)

    def upper(self, numbers: np.ndarray) -> np.ndarray:
        """(N, K) to (N, K): the probability of a number at least as large."""
        return self._survival(np.asarray(numbers, np.float32), self.values, self.tails[:, 1])

    def lower(self, numbers: np.ndarray) -> np.ndarray:
        """(N, K) to (N, K): the probability of a number at most as large."""
        mirrored = -self.values[:, ::-1]
        return self._survival(-np.asarray(numbers, np.float32), mirrored, self.tails[:, 0])

    def two_sided(self, numbers: np.ndarray) -> np.ndarray:
        """(N, K) to (N, K): twice the smaller of both, at most 1."""
        return np.minimum(2 * np.minimum(self.lower(numbers), self.upper(numbers)), 1)

    def _survival(self, x: np.ndarray, values: np.ndarray, tail: np.ndarray) -> np.ndarray:
        """P(X >= x) under ascending quantiles at the table's (symmetric) levels."""
        n, k = x.shape
        p = np.empty((n, k), np.float32)
        step = max(1, _CHUNK // values.size)
        for start in range(0, n, step):
            p[start : start + step] = self._survival_of_some(x[start : start + step], values)
        # Of size + 1 exchangeable numbers each is the largest equally often.
        floor = 1 / (self.size + 1)
        with np.errstate(over="ignore"):
            excess = np.maximum(x - values[:, -1], 0) / tail
        return np.maximum(p, floor) * np.exp(-np.minimum(excess, 80))

    def _survival_of_some(self, x: np.ndarray, values: np.ndarray) -> np.ndarray:
        last = len(self.levels) - 1
        below = (values < x[..., None]).sum(axis=2)  # quantiles strictly under x
        left, right = np.clip(below - 1, 0, last), np.minimum(below, last)
        channels = np.arange(len(values))
        low, high = values[channels, left], values[channels, right]
        with np.errstate(over="ignore"):  # far beyond the last quantile
            share = np.clip((x - low) / np.maximum(high - low, 1e-6 * np.abs(high) + 1e-30), 0, 1)
        at = self.levels[left] + share * (self.levels[right] - self.levels[left])
        return np.where(below == 0, 1, 1 - at)
