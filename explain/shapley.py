"""What each training image is worth to a nearest-neighbour classifier on the same features."""

import numpy as np

from models.bank import normalise_rows

NEIGHBOURS = 10
_VALIDATION_CHUNK = 32
_TRAINING_CHUNK = 16_384


def knn_shapley(
    features: np.ndarray, labels: np.ndarray, validation_features: np.ndarray,
    validation_labels: np.ndarray, neighbours: int = NEIGHBOURS,
) -> np.ndarray:  # fmt: skip
    """Exact Shapley value of every training image for a K-nearest-neighbour classifier.

    Images are players, and a set of them is worth the mean over validation images of
    (1/K) #{of its K nearest: same label} (Jia, Dao, Wang, Hubis, Gurel, Li, Zhang, Spanos and
    Song, VLDB 2019, theorem 1). So the values add up to the share of right labels among the K
    nearest of all training images; a negative value speaks of a wrong label. To ask about a
    slice, give the validation images of the slice only.

    Distance is 1 - cosine in float32; of equally near images the first row counts as nearer.
    O(M N (D + log N)) time; O(N) memory beside the inputs, as nothing of size N x M is kept.

    Args:
        features: (N, D) of the training images, any float.
        labels: (N,) integers.
        validation_features: (M, D) of images held out from training.
        validation_labels: (M,) integers.
        neighbours: K, which may exceed N.

    Returns:
        (N,) float64, in shares of a validation image.

    Raises:
        ValueError: without validation images, or when shapes disagree or a feature is no number.
    """
    labels, validation_labels = np.asarray(labels), np.asarray(validation_labels)
    _check(features, labels, "training")
    _check(validation_features, validation_labels, "validation")
    if len(validation_labels) == 0:
        raise ValueError("There are no validation images to be worth something to.")
    count = len(labels)
    weights = marginal_weights(count, neighbours)
    inverse_lengths = _inverse_lengths(features)
    values = np.zeros(count)
    for start in range(0, len(validation_labels), _VALIDATION_CHUNK):
        chunk = slice(start, start + _VALIDATION_CHUNK)
        distances = _distances(validation_features[chunk], features, inverse_lengths)
        for row, label in zip(distances, validation_labels[chunk], strict=True):
            order = nearest_first(row)
            values[order] += ranked_values(labels[order] == label, weights)
    return values / len(validation_labels)


def marginal_weights(count: int, neighbours: int) -> np.ndarray:
    """(N,) of min(K, j) / (K j) for rank j = 1..N: what a right label at rank j adds on average."""
    ranks = np.arange(1, count + 1)
    return np.minimum(neighbours, ranks) / (neighbours * ranks)


def ranked_values(matches: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shapley values for one validation image, by rank.

    The recursion s_N = w_N m_N, s_j = s_{j+1} + w_j (m_j - m_{j+1}) (Jia et al., equations 4 and 5)
    summed by parts: s_j = w_j m_j - sum over i > j of m_i (w_{i-1} - w_i).

    Args:
        matches: (..., N) bool, nearest first: has the validation image's label.
        weights: (N,) see `marginal_weights`.
    """
    lost = np.zeros(matches.shape)
    lost[..., 1:] = matches[..., 1:] * -np.diff(weights)
    after = np.cumsum(lost[..., ::-1], axis=-1)[..., ::-1] - lost
    return matches * weights - after


def nearest_first(distances: np.ndarray) -> np.ndarray:
    """(N,) positive float32 to (N,) int64 rows, nearest first and ties by row.

    The bits of positive floats order as integers do. Above the row in one 64-bit key they need a
    plain sort only, which is faster than a stable argsort.
    """
    keys = distances.view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(len(distances), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _distances(asked: np.ndarray, features: np.ndarray, inverse_lengths: np.ndarray) -> np.ndarray:
    """(m, N) float32, 2 - cosine, which rounding leaves positive.

    Features of other types are converted a chunk at a time.
    """
    unit = normalise_rows(asked)
    similarity = np.empty((len(unit), len(features)), np.float32)
    for start in range(0, len(features), _TRAINING_CHUNK):
        rows = slice(start, start + _TRAINING_CHUNK)
        np.matmul(unit, np.asarray(features[rows], np.float32).T, out=similarity[:, rows])
    similarity *= inverse_lengths
    return np.subtract(2, similarity, out=similarity)


def _inverse_lengths(features: np.ndarray) -> np.ndarray:
    lengths = np.empty(len(features), np.float32)
    for start in range(0, len(features), _TRAINING_CHUNK):
        rows = slice(start, start + _TRAINING_CHUNK)
        lengths[rows] = np.linalg.norm(np.asarray(features[rows], np.float32), axis=1)
    return 1 / np.maximum(lengths, np.finfo(np.float32).tiny)


def _check(features: np.ndarray, labels: np.ndarray, kind: str) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise ValueError(
            f"{kind} features {features.shape} and labels {labels.shape} must be (N, D) and (N,)."
        )
    for start in range(0, len(features), _TRAINING_CHUNK):
        if not np.isfinite(features[start : start + _TRAINING_CHUNK]).all():
            raise ValueError(f"Some {kind} features are not finite.")
