"""Which flagged images look alike, and like nothing known."""

import numpy as np
from sklearn.cluster import HDBSCAN

from models.bank import normalise_rows

SMALLEST_GROUP = 5
_CONTEXT = 1_000
_OWN_SHARE = 0.8
_LATEST = 3_000


def group_flagged(features: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Group flagged images by their features, not by their place on a map.

    HDBSCAN (Campello, Moulavi and Sander, PAKDD 2013) on unit vectors, over the flagged images
    and up to 1,000 normal ones together: without normal images beside them, odd normal images
    form groups too. A cluster is a group when at least five, and four in five, of its images are
    flagged ones.

    Args:
        features: (N, D) of flagged images.
        normal: (M, D) of held-out images of the known classes.

    Returns:
        (N,) int: 0 for the largest group, 1 for the next, ...; -1 for images in none.
    """
    groups = np.full(len(features), -1)
    if len(features) < SMALLEST_GROUP:
        return groups
    context = normal[:: max(1, -(-len(normal) // _CONTEXT))]
    together = normalise_rows(np.concatenate([features, context]))
    found = HDBSCAN(min_cluster_size=SMALLEST_GROUP, min_samples=3, copy=True).fit_predict(together)
    members = [np.flatnonzero(found[: len(features)] == c) for c in range(found.max() + 1)]
    apart = [
        rows
        for cluster, rows in enumerate(members)
        if len(rows) >= max(SMALLEST_GROUP, _OWN_SHARE * (found == cluster).sum())
    ]
    for rank, rows in enumerate(sorted(apart, key=len, reverse=True)):
        groups[rows] = rank
    return groups


def group_tight(features: np.ndarray) -> np.ndarray:
    """Tight groups of flagged images alone, for a test that must not look at normal ones.

    HDBSCAN as in `group_flagged`, without others beside them; all of them may be one group. Its
    memory grows with the square of their number: of more than 3,000, the latest are grouped.

    Args:
        features: (N, D) unit features of flagged images, in the order in which they came.

    Returns:
        (N,) int, -1 for images in none.
    """
    groups = np.full(len(features), -1)
    if len(features) < SMALLEST_GROUP:
        return groups
    model = HDBSCAN(
        min_cluster_size=SMALLEST_GROUP, copy=True, allow_single_cluster=True, algorithm="brute"
    )
    groups[-_LATEST:] = model.fit_predict(features[-_LATEST:])
    return groups
