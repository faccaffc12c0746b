"""Which of all points lie in what was drawn on a map, drawn themselves or not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def inside(selection: Mapping[str, Any], coordinates: np.ndarray) -> np.ndarray:
    """Rows in any lasso or box of a chart's selection.

    A map shows a sample of its points; what a person draws around means all of them.

    Args:
        selection: of a Plotly chart in Streamlit: `lasso` and `box`, each a list of `x` and `y`.
        coordinates: (N, 2).

    Returns:
        (n,) rows, ascending.
    """
    found = np.zeros(len(coordinates), bool)
    for drawn in selection.get("lasso", []):
        found |= in_polygon(drawn["x"], drawn["y"], coordinates)
    for drawn in selection.get("box", []):
        low, high = (np.array([bound(drawn["x"]), bound(drawn["y"])]) for bound in (min, max))
        found |= ((coordinates >= low) & (coordinates <= high)).all(axis=1)
    return np.flatnonzero(found)


def in_polygon(xs: Sequence[float], ys: Sequence[float], coordinates: np.ndarray) -> np.ndarray:
    """(N,) bool by the even-odd rule: a ray to the right crosses an odd number of edges.

    Args:
        xs: (K,) of the corners, in order.
        ys: (K,).
        coordinates: (N, 2).
    """
    x, y = np.asarray(coordinates, np.float64).T
    found = np.zeros(len(coordinates), bool)
    for x0, y0, x1, y1 in zip(xs, ys, np.roll(xs, -1), np.roll(ys, -1), strict=True):
        crossing = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            found ^= crossing & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return found
