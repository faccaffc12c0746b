"""A quantile of more numbers than fit in memory."""

import numpy as np

from ood.detectors.chunks import slices

_SAMPLED_ROWS = 1_000
_MARGIN = 0.01


def exact_quantile(features: np.ndarray, level: float) -> float:
    """The smallest of all N D numbers that at least `level` of them do not exceed; exact.

    A sample of evenly spaced rows brackets it within a hundredth of the ranks, and one pass
    counts what lies outside and keeps what lies inside.

    Args:
        features: (N, D), may be a memory map.
        level: in (0, 1].
    """
    rank = int(np.ceil(level * features.size)) - 1
    sample = np.asarray(features[:: max(len(features) // _SAMPLED_ROWS, 1)], np.float32)
    low, high = np.quantile(
        sample, [max(level - _MARGIN, 0), min(level + _MARGIN, 1)], method="nearest"
    )
    found = _select(features, rank, low, high)
    if found is None:  # the sample misled
        found = _select(features, rank, np.float32(-np.inf), np.float32(np.inf))
    assert found is not None
    return found


def _select(features: np.ndarray, rank: int, low: np.floating, high: np.floating) -> float | None:
    """The number of this rank, counted from 0, if it lies in [low, high]."""
    below = at_low = at_high = 0
    inside = []
    for rows in slices(len(features)):
        chunk = np.asarray(features[rows], np.float32)
        below += int(np.count_nonzero(chunk < low))
        at_low += int(np.count_nonzero(chunk == low))
        at_high += int(np.count_nonzero(chunk == high)) if high > low else 0
        inside.append(chunk[(chunk > low) & (chunk < high)])
    between = np.concatenate(inside)
    if not below <= rank < below + at_low + len(between) + at_high:
        return None
    rank -= below + at_low
    if rank < 0:
        return float(low)
    return float(np.partition(between, rank)[rank]) if rank < len(between) else float(high)
