"""Walking many images in parts, so that they are never in memory twice."""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import csr_array

from models.activations import Activations

# Of 2,048 features, 16 MB: what is made of a chunk stays in the cache, and costs no page faults.
CHUNK = 2_048


def slices(length: int, size: int = CHUNK) -> Iterator[slice]:
    """Consecutive slices that cover `length` rows; one empty slice for none."""
    return (slice(start, start + size) for start in range(0, max(length, 1), size))


def part(activations: Activations, rows: slice) -> Activations:
    """Some of the images, as views, without neighbours."""
    return Activations(
        logits=activations.logits[rows],
        features=activations.features[rows],
        means=tuple(stage[rows] for stage in activations.means),
        maxima=tuple(stage[rows] for stage in activations.maxima),
    )


def by_chunk(
    score: Callable[[Activations], np.ndarray], activations: Activations, size: int = CHUNK
) -> np.ndarray:
    """(N,) float32 scores, a chunk at a time."""
    scores = [score(part(activations, rows)) for rows in slices(len(activations), size)]
    return np.concatenate(scores).astype(np.float32, copy=False)


def mean_row(features: np.ndarray) -> np.ndarray:
    """(N, D) to (D,) float64."""
    return group_sums(features, np.zeros(len(features), np.int64), 1)[0] / len(features)


def group_sums(features: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """(N, D) and (N,) numbers of groups below `count` to (count, D) float64 sums."""
    sums = np.zeros((count, features.shape[1]))
    for rows in slices(len(features)):
        sums += sum_by_group(features[rows], groups[rows], count)
    return sums


def sum_by_group(vectors: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """The sums of one chunk, as a product with the sparse matrix of memberships."""
    shape = (count, len(vectors))
    members = csr_array((np.ones(len(vectors), np.float32), (groups, np.arange(shape[1]))), shape)
    return members @ np.asarray(vectors, np.float32)
