"""What of a stream's past a bettor looks at: all of it, the last so many items, or ADWIN's window.

A window only feeds bets. Its choice may depend on all that was seen before the item that is bet
on, so a bad window loses money but never breaks a bound.

Batches bring nothing: averaging b items before betting keeps the bound, but in the best case it
grows slower per item than betting on each (at a limit of 0.1 and a risk of 0.2 by 9% for b = 5,
20% for 10 and 40% for 20), so none are formed here.
"""

from typing import Self

import numpy as np

_CUT_EVERY = 32
_BUCKETS = 5
_LEVELS = 16
_CONFIDENCE = 0.002


class Window:
    """The last items that mattered, or all of them.

    Memory is the length of the window times the number of streams and thresholds; constant
    without a length.

    Attributes:
        items: (..., K) int, that ever mattered.
    """

    def __init__(self, shape: tuple[int, ...], length: int = 0) -> None:
        """Of (..., K) streams and thresholds; a length of 0 means all items."""
        self.items = np.zeros(shape, np.int64)
        self._sums = np.zeros((2, *shape))
        self._recent = np.zeros((length, *shape))

    @property
    def moments(self) -> np.ndarray:
        """(2, ..., K): means of payoffs and of their squares, 0 where there are none yet."""
        length = len(self._recent)
        size = np.minimum(self.items, length) if length else self.items
        return self._sums / np.maximum(size, 1)

    def add(self, payoffs: np.ndarray) -> None:
        """(..., K) payoffs of the next item; 0 where it does not matter."""
        relevant = payoffs != 0
        sums = np.stack([payoffs, np.square(payoffs)])
        if len(self._recent):
            slot = (self.items % len(self._recent))[None]
            oldest = np.take_along_axis(self._recent, slot, axis=0)
            left = np.where(relevant, oldest[0], 0.0)
            sums -= [left, np.square(left)]
            np.put_along_axis(self._recent, slot, np.where(relevant, payoffs, oldest), axis=0)
        self._sums += sums
        self.items += relevant

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `restore` goes on."""
        return {"items": self.items, "sums": self._sums, "recent": self._recent}

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> Self:
        """What had this state."""
        new = cls(state["items"].shape)
        new.items, new._sums, new._recent = (
            state[name].copy() for name in ("items", "sums", "recent")
        )
        return new


class Adwin:
    """The longest recent window that looks like one distribution, of up to 327,675 items.

    ADWIN2 (Bifet and Gavaldà, SDM 2007, section 4): while the means before and after some split
    of the window of n = n0 + n1 items differ by more than

        sqrt(2 v ln(2 / d) / m) + 2 ln(2 / d) / (3 m),    m = 1 / (1 / n0 + 1 / n1),

    with v the variance in the window and d = 0.002 / ln n, its oldest bucket is dropped. Splits
    lie between buckets of 1, 2, 4, ... items, at most five of a size, so memory is constant; they
    are looked at every 32 items. The test asks for payoffs within an interval of length 1: with
    inverse probabilities it cuts too often, which costs growth and not validity.

    Attributes:
        items: (..., K) int, that ever mattered.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Of (..., K) streams and thresholds."""
        self.items = np.zeros(shape, np.int64)
        width = self.items.size
        # Rows: number of items, sum of payoffs, sum of their squares. A level's buckets come
        # oldest first; its last place is taken only until two are merged.
        self._sums = np.zeros((3, width))
        self._buckets = np.zeros((3, _LEVELS, _BUCKETS + 1, width))
        self._filled = np.zeros((_LEVELS, width), np.int64)

    @property
    def moments(self) -> np.ndarray:
        """(2, ..., K): means of payoffs and of their squares, 0 where there are none yet."""
        means = self._sums[1:] / np.maximum(self._sums[0], 1)
        return means.reshape(2, *self.items.shape)

    def add(self, payoffs: np.ndarray) -> None:
        """(..., K) payoffs of the next item; 0 where it does not matter."""
        self.items += payoffs != 0
        at = np.flatnonzero(payoffs)
        values = payoffs.reshape(-1)[at]
        self._insert(at, np.stack([np.ones(len(at)), values, np.square(values)]))
        at = at[self.items.reshape(-1)[at] % _CUT_EVERY == 0]
        while len(at):
            at = at[self._differs(at)]
            self._drop_oldest(at)

    def _insert(self, at: np.ndarray, bucket: np.ndarray) -> None:
        """Put (3, E) buckets of one item each into E windows; a full level merges its oldest."""
        self._sums[:, at] += bucket
        for level in range(_LEVELS):
            place = self._filled[level, at]
            self._buckets[:, level, place, at] = bucket
            self._filled[level, at] += 1
            at = at[place == _BUCKETS]
            if len(at) == 0:
                return
            buckets = self._buckets[:, level][:, :, at]
            bucket = buckets[:, 0] + buckets[:, 1]
            buckets[:, :-2], buckets[:, -2:] = buckets[:, 2:].copy(), 0
            self._buckets[:, level, :, at] = buckets.transpose(2, 0, 1)
            self._filled[level, at] -= 2
        self._sums[:, at] -= bucket

    def _differs(self, at: np.ndarray) -> np.ndarray:
        """(E,) bool: whether the means before and after some split differ too much."""
        levels = int(self._filled.any(axis=1).sum())
        buckets = self._buckets[:2, :levels][:, ::-1, :, at].reshape(2, -1, len(at))
        (n0, sum0), (n, total, squares) = buckets.cumsum(axis=1), self._sums[:, at]
        n1 = n - n0
        split = (n0 > 0) & (n1 > 0)
        n0, n1 = np.where(split, n0, 1), np.where(split, n1, 1)
        log = np.log(2 * np.log(np.maximum(n, 2)) / _CONFIDENCE)
        variance = np.maximum(squares / n - np.square(total / n), 0)
        inverse = 1 / n0 + 1 / n1
        allowed = np.sqrt(2 * variance * log * inverse) + 2 / 3 * log * inverse
        return (split & (np.abs(sum0 / n0 - (total - sum0) / n1) > allowed)).any(axis=0)

    def _drop_oldest(self, at: np.ndarray) -> None:
        level = _LEVELS - 1 - np.argmax(self._filled[::-1, at] > 0, axis=0)
        self._sums[:, at] -= self._buckets[:, level, 0, at]
        self._buckets[:, level, :-1, at] = self._buckets[:, level, 1:, at]
        self._filled[level, at] -= 1

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `restore` goes on."""
        return {
            "items": self.items, "sums": self._sums, "buckets": self._buckets,
            "filled": self._filled,
        }  # fmt: skip

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> Self:
        """What had this state."""
        new = cls(state["items"].shape)
        new.items, new._sums, new._buckets, new._filled = (
            state[name].copy() for name in ("items", "sums", "buckets", "filled")
        )
        return new
