"""Which of many dots a map draws, and which of them as pictures."""

import numpy as np

from app.map_layers import Dots, Layer

MOST_DRAWN = 20_000


def drawn(dots: Dots, rows: np.ndarray, most: int = MOST_DRAWN) -> np.ndarray:
    """At most so many of the visible images: all flagged ones, then yours, then a sample.

    The sample has every layer and class in proportion. Where the flagged ones alone are too many,
    they are sampled.

    Args:
        dots: M images.
        rows: (n,) visible ones, ascending.
        most: how many can be drawn.

    Returns:
        (k,) of the rows, ascending.
    """
    flagged, own = dots.flagged[rows], dots.of_layer(Layer.UPLOADS)[rows]
    strata = dots.layers[rows] * (1 + int(dots.classes.max(initial=0))) + dots.classes[rows]
    chosen = np.empty(0, np.int64)
    for part in (flagged, own & ~flagged, ~own & ~flagged):
        these = rows[part]
        kept = these[stratified_sample(strata[part], most - len(chosen))]
        chosen = np.concatenate([chosen, kept])
    return np.sort(chosen)


def stratified_sample(strata: np.ndarray, size: int) -> np.ndarray:
    """At most `size` rows, every stratum in proportion and, where they suffice, with one; seeded.

    Args:
        strata: (N,) int, of each row.
        size: how many rows at most.

    Returns:
        (n,) rows, ascending.
    """
    if len(strata) <= size:
        return np.arange(len(strata))
    order = np.random.default_rng(0).permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    _, first, counts = np.unique(strata[order], return_index=True, return_counts=True)
    within = np.arange(len(order)) - np.repeat(first, counts)
    # How far through its stratum a row is: the first `size` by this are of all in proportion.
    through = within / np.repeat(counts, counts)
    return np.sort(order[np.argsort(through, kind="stable")[:size]])


def apart(places: np.ndarray, side: float, most: int) -> np.ndarray:
    """Rows of points, in their order, around which squares of this side do not overlap.

    Args:
        places: (N, 2), those to be preferred first.
        side: of the squares.
        most: how many rows at most.
    """
    left = np.arange(len(places))
    chosen: list[int] = []
    while len(left) and len(chosen) < most:
        chosen.append(int(left[0]))
        distances = np.abs(places[left] - places[left[0]]).max(axis=1)
        left = left[distances >= side]
    return np.array(chosen, np.int64)
