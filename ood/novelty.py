"""Which flagged images look alike."""

import numpy as np
from sklearn.cluster import HDBSCAN

from models.bank import normalise_rows

SMALLEST_CLUSTER = 5


def cluster_flagged(features: np.ndarray) -> np.ndarray:
    """Group flagged images by their features, not by their place on a map.

    HDBSCAN (Campello, Moulavi and Sander, PAKDD 2013) on unit vectors; a group has at least
    five images.

    Args:
        features: (N, D) of flagged images.

    Returns:
        (N,) int: 0 for the largest group, 1 for the next, ...; -1 for images like no other.
    """
    if len(features) < SMALLEST_CLUSTER:
        return np.full(len(features), -1)
    found = HDBSCAN(
        min_cluster_size=SMALLEST_CLUSTER, allow_single_cluster=True, copy=True
    ).fit_predict(normalise_rows(features))
    sizes = np.bincount(found[found >= 0], minlength=1)
    rank = np.empty_like(sizes)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    return np.where(found >= 0, rank[found], -1)
