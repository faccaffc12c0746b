"""A plane on which training images that the model finds alike lie together."""

import numpy as np

from models.activations import Neighbours
from models.bank import normalise_rows

SEED = 0
_NEIGHBOURS_TO_PLACE = 15


def fit_map(features: np.ndarray) -> np.ndarray:
    """UMAP (McInnes, Healy and Melville, 2018) of unit vectors.

    Seeded, so that one workspace has one map. Small sets, too small for UMAP's spectral start,
    are laid out by their first two principal components.

    Args:
        features: (N, D).

    Returns:
        (N, 2) float32.
    """
    unit = normalise_rows(features)
    if len(unit) < 2 * _NEIGHBOURS_TO_PLACE:
        centred = unit - unit.mean(axis=0)
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        plane = np.zeros((len(unit), 2), np.float32)
        plane[:, : min(2, len(sizes))] = (left * sizes)[:, :2]
        return plane
    from umap import UMAP  # compiles for half a minute; only preparing a workspace pays

    coordinates: np.ndarray = UMAP(random_state=SEED, n_jobs=1).fit_transform(unit)
    return coordinates.astype(np.float32)


def place(neighbours: Neighbours, coordinates: np.ndarray) -> np.ndarray:
    """New images on the map: the mean of their nearest training images, the nearer the heavier.

    Args:
        neighbours: of N images.
        coordinates: (N_bank, 2) of the training images.

    Returns:
        (N, 2) float32.
    """
    rows = neighbours.rows[:, :_NEIGHBOURS_TO_PLACE]
    distances = neighbours.distances[:, :_NEIGHBOURS_TO_PLACE]
    # A training image itself lies at about 1e-3 (float16) and then decides alone.
    weights = 1 / np.maximum(distances, 1e-4) ** 2
    weights /= weights.sum(axis=1, keepdims=True)
    return np.einsum("nk,nkd->nd", weights, coordinates[rows]).astype(np.float32)
