"""How well a map keeps who is near whom."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from models.bank import normalise_rows

NEIGHBOURS = 15
SAMPLED = 2_000
_SEED = 0


@dataclass(frozen=True)
class MapQuality:
    """Of a map, on a sample of its images; both numbers are 1 at best and about 0.5 by chance.

    Attributes:
        trustworthiness: less than 1 where images lie together that the model tells apart.
        continuity: less than 1 where images lie apart that the model finds alike.
        neighbours: how many nearest ones of each image are looked at.
        images: how many are in the sample.
    """

    trustworthiness: float
    continuity: float
    neighbours: int
    images: int


def map_quality(
    features: np.ndarray, coordinates: np.ndarray, neighbours: int = NEIGHBOURS
) -> MapQuality:
    """Trustworthiness and continuity (Venna and Kaski, ICANN 2001, equations 1 and 2).

    Of n images, with r(i, j) the rank of j among the others by distance from i, trustworthiness
    is 1 - 2 / (n k (2 n - 3 k - 1)) times the sum of r(i, j) - k in feature space over the pairs
    that are among the k nearest on the map but not among those in feature space. Continuity is
    the same with the spaces swapped. n^2 numbers, so that a seeded sample stands for large sets.

    Args:
        features: (N, D), compared as unit vectors, as the map was fitted.
        coordinates: (N, 2) on the map.
        neighbours: k, of the images in the sample.

    Raises:
        ValueError: when there are not more than 2 k images.
    """
    if not 0 < 2 * neighbours < len(features):
        raise ValueError(
            f"{neighbours} neighbours need more than {2 * neighbours} images; there are "
            f"{len(features)}."
        )
    rows = np.arange(len(features))
    if len(rows) > SAMPLED:
        rows = np.sort(np.random.default_rng(_SEED).choice(rows, SAMPLED, replace=False))
    by_model, by_map = _ranks(normalise_rows(features[rows])), _ranks(coordinates[rows])
    return MapQuality(
        trustworthiness=_kept(by_map, by_model, neighbours),
        continuity=_kept(by_model, by_map, neighbours),
        neighbours=neighbours,
        images=len(rows),
    )


def _ranks(points: np.ndarray) -> np.ndarray:
    """(n, n) int: row i has the rank of each point by distance from i; 0 for i itself."""
    distances = cdist(points, points)
    np.fill_diagonal(distances, -1)  # before its copies
    order = np.argsort(distances, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(len(points))[None], axis=1)
    return ranks


def _kept(ranks: np.ndarray, others: np.ndarray, k: int) -> float:
    """1 less how far, in the other space, the k nearest of this one lie beyond the k nearest."""
    n = len(ranks)
    beyond = np.maximum(others[(ranks > 0) & (ranks <= k)] - k, 0).sum()
    return float(1 - 2 * beyond / (n * k * (2 * n - 3 * k - 1)))
