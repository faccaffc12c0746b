"""The largest scores, exactly, from as few rows as it takes."""

from collections.abc import Callable

import numpy as np

Score = Callable[[slice], np.ndarray]


def largest(
    score: Score, order: np.ndarray, ceilings: np.ndarray, k: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the k largest positive scores, and these, as a full scan finds them.

    Rows are scored in blocks of growing size, those with the highest ceilings first, until no
    ceiling that is left reaches the k-th best score (the threshold algorithm of Fagin, Lotem and
    Naor, PODS 2001; for inner products under ceilings of Cauchy and Schwarz: Teflioudi, Gemulla
    and Mykytiuk, SIGMOD 2015, section 3). Among equal scores the lower row is first.

    Args:
        score: a part of `order` to the (n,) scores of its rows.
        order: (N,) rows by descending ceiling.
        ceilings: (N,) descending; no row's score, rounding included, is above its ceiling.
        k: how many.
        block: how many rows to score first; each block is twice the one before.

    Returns:
        Rows and scores, best first; fewer than k when fewer are positive.
    """
    best = _Best(k)
    _scan(score, order, ceilings, best.add, [best], block)
    return best.rows, best.scores


def both_largest(
    score: Score, order: np.ndarray, ceilings: np.ndarray, k: int, block: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The rows of the k most negative and of the k most positive scores, from one scan.

    As `largest`, but `ceilings` bound absolute values. The scores returned keep their signs.
    """
    negative, positive = _Best(k), _Best(k)

    def add(rows: np.ndarray, scores: np.ndarray) -> None:
        negative.add(rows, -scores)
        positive.add(rows, scores)

    _scan(score, order, ceilings, add, [negative, positive], block)
    return (negative.rows, -negative.scores), (positive.rows, positive.scores)


def top(values: np.ndarray, k: int) -> np.ndarray:
    """(min(k, N),) places of the largest of (N,) values; among equal ones the lower is first.

    Raises:
        ValueError: when a value is NaN.
    """
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum()} of {len(values)} scores are NaN.")
    k = min(k, len(values))
    if k == 0:
        return np.empty(0, np.int64)
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    places = np.flatnonzero(values >= threshold)
    return places[np.argsort(-values[places], kind="stable")][:k]


class _Best:
    """The k best positive scores so far."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.rows = np.empty(0, np.int64)
        self.scores = np.empty(0, np.float32)

    @property
    def threshold(self) -> float:
        """What a score must reach to enter."""
        if self.k == 0:
            return np.inf
        smallest_positive = float(np.finfo(np.float32).smallest_subnormal)
        return float(self.scores[-1]) if len(self.scores) == self.k else smallest_positive

    def add(self, rows: np.ndarray, scores: np.ndarray) -> None:
        if np.isnan(scores).any():
            raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are NaN.")
        entering = scores >= self.threshold
        rows = np.concatenate([self.rows, rows[entering]])
        scores = np.concatenate([self.scores, scores[entering]])
        chosen = np.lexsort((rows, -scores))[: self.k]
        self.rows, self.scores = rows[chosen], scores[chosen]


def _scan(
    score: Score, order: np.ndarray, ceilings: np.ndarray,
    add: Callable[[np.ndarray, np.ndarray], None], bests: list[_Best], block: int,
) -> None:  # fmt: skip
    start, size = 0, block
    while start < len(order):
        lowest = min(best.threshold for best in bests)
        reaching = len(ceilings) - int(np.searchsorted(ceilings[::-1], lowest))
        stop = min(start + size, reaching)
        if stop <= start:
            break
        part = slice(start, stop)
        add(order[part], score(part))
        start, size = stop, 2 * size
