"""Which flagged images belong together, how many such clusters there are, and how firmly.

In feature space, never on a map: a map in two dimensions tears clusters apart and makes others up.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from models.bank import normalise_rows

SMALLEST_CLUSTER = 5
SAMPLE = 10_000
STABLE = 0.75
LARGEST_K = 15
HELD = 0.9
_DIMENSIONS = 50
_NEIGHBOURS = 5
_RESAMPLES = 20
_RESAMPLE_SIZE = 2_000
_SILHOUETTES = 2_000
_REFERENCES = 5
_CHUNK = 16_384

Progress = Callable[[float], object]
Partition = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Clusters:
    """K clusters of N images, the largest first: of a sample, where only a sample was clustered.

    Distances are Euclidean between features of length one and a centre; they go from 0 to 2.

    Attributes:
        labels: (N,) int64, the cluster of each image; -1 for none.
        distances: (N,) float32, to the centre of its own cluster; infinite for none.
        centres: (K, D) float32, mean of the members' unit features.
        radii: (K,) float32, the smallest that holds 90% of the members.
        stability: (K,) from 0 to 1, mean Jaccard similarity with the most similar cluster of a
            random part of the images (Hennig, CSDA 2007, section 3); 0.75 and more is stable.
    """

    labels: np.ndarray
    distances: np.ndarray
    centres: np.ndarray
    radii: np.ndarray
    stability: np.ndarray

    def __len__(self) -> int:
        return len(self.radii)

    def members(self, cluster: int) -> np.ndarray:
        """(n,) rows of a cluster's images, nearest to its centre first.

        The first is the medoid: no other member has a smaller sum of squared distances to all.
        """
        rows = np.flatnonzero(self.labels == cluster)
        return rows[np.argsort(self.distances[rows], kind="stable")]

    def assign(self, features: np.ndarray) -> np.ndarray:
        """(M, D) features of other images to (M,) clusters: the nearest whose ball holds it, or -1.

        Raises:
            ValueError: when a feature is not finite.
        """
        _check(features)
        return _in_balls(features, self.centres, self.radii)


def no_progress(share: float) -> None:
    """For callers that show none."""


def cluster_by_density(features: np.ndarray, progress: Progress = no_progress) -> Clusters:
    """HDBSCAN (Campello, Moulavi and Sander, PAKDD 2013): dense groups, and images in none.

    On unit features, at most 50 principal components of them. A cluster has at least 5 images, and
    the square root of their number where that is more. Of more than 10,000 images a sample is
    clustered; each other image joins the nearest cluster whose ball holds it, or none.

    Args:
        features: (N, D) of flagged images.
        progress: called with the share of the work that is done, last with 1.

    Raises:
        ValueError: when the features are no matrix, or not finite.
    """
    rows, points = _sampled(features)
    smallest = max(SMALLEST_CLUSTER, round(float(np.sqrt(len(rows)))))
    found = _dense(points, smallest / max(1, len(rows)))
    progress(0.3)
    partition = partial(_dense, share=smallest / max(1, len(rows)))
    steady = stability(points, found, partition, progress)
    return _clusters(features, rows, found, steady, progress, nearest=False)


def cluster_by_means(
    features: np.ndarray, k: int | None = None, progress: Progress = no_progress
) -> Clusters:
    """k-means (Lloyd, 1982): every image belongs to a cluster.

    On unit features, at most 50 principal components of them. Of more than 10,000 images a sample
    is clustered; each other image joins the nearest centre.

    Args:
        features: (N, D) of flagged images.
        k: how many clusters; None estimates it, see `estimate_k`.
        progress: called with the share of the work that is done, last with 1.

    Raises:
        ValueError: when the features are no matrix or not finite, or there are fewer than k images.
    """
    rows, points = _sampled(features)
    if k is not None and not 1 <= k <= len(features):
        raise ValueError(f"k must be from 1 to the number of images, {len(features)}; it is {k}.")
    if len(features) == 0:
        return _clusters(features, rows, np.empty(0, int), np.empty(0), progress, nearest=True)
    partition = partial(_k_means, k=_estimate(points) if k is None else k)
    found = partition(points)
    progress(0.3)
    steady = stability(points, found, partition, progress)
    return _clusters(features, rows, found, steady, progress, nearest=True)


def estimate_k(features: np.ndarray) -> int:
    """How many clusters k-means should make of (N, D) features, from 0 (no images) to 15.

    The k with the largest mean silhouette (Rousseeuw, J. Comput. Appl. Math. 1987). A silhouette
    needs two clusters, so one is the answer unless that silhouette is larger than any of five
    reference sets': as many points from a normal distribution of the same mean and covariance,
    which is one cluster (the idea of the gap statistic: Tibshirani, Walther and Hastie, JRSS B
    2001).

    Raises:
        ValueError: when the features are no matrix, or not finite.
    """
    points = _sampled(features)[1]
    return _estimate(points) if len(points) else 0


def _estimate(points: np.ndarray) -> int:
    rng = np.random.default_rng(0)
    points = points[_random_rows(len(points), _SILHOUETTES, rng)]
    silhouettes = _silhouettes(points, range(2, LARGEST_K + 1))
    if not silhouettes:
        return 1
    best = max(silhouettes, key=lambda k: silhouettes[k])
    scale = points.std(axis=0)  # principal components: their covariance is diagonal
    for _ in range(_REFERENCES):
        reference = _silhouettes(rng.normal(0, 1, points.shape) * scale, (2, best))
        if silhouettes[best] <= max(reference.values(), default=-1):
            return 1
    return best


def _silhouettes(points: np.ndarray, tried: Iterable[int]) -> dict[int, float]:
    """Mean silhouette for each k that makes at least two clusters and fewer than points."""
    different = len(np.unique(points, axis=0))
    return {
        k: float(silhouette_score(points, _k_means(points, k)))
        for k in tried
        if k <= min(different, len(points) - 1)
    }


def _check(features: np.ndarray) -> None:
    if np.ndim(features) != 2:
        raise ValueError(f"Features must be a matrix (N, D), not of shape {np.shape(features)}.")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"Features of {np.sum(~finite)} of {len(features)} images are not finite "
            f"(first: row {np.argmin(finite)})."
        )


def _sampled(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) rows, ascending and the same each time, and (n, d) their principal components."""
    _check(features)
    rows = _random_rows(len(features), SAMPLE, np.random.default_rng(0))
    points = normalise_rows(features[rows])
    dimensions = min(_DIMENSIONS, *points.shape)
    if dimensions == 0:
        return rows, points
    different, place = np.unique(points, axis=0, return_inverse=True)
    # All points in one place have no component, of which the ratio of variances warns.
    with np.errstate(invalid="ignore"):
        model = PCA(dimensions, random_state=0).fit(points)
    return rows, model.transform(different)[place]  # so that copies stay in one place


def _random_rows(length: int, size: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(length, min(size, length), replace=False))


def _dense(points: np.ndarray, share: float) -> np.ndarray:
    """(n,) labels of HDBSCAN; a cluster has at least this share of the points, and 5."""
    smallest = max(SMALLEST_CLUSTER, round(share * len(points)))
    if len(points) < smallest:
        return np.full(len(points), -1)
    if np.ptp(points, axis=0).max(initial=0) < 1e-6:
        return np.zeros(len(points), int)  # copies, to HDBSCAN one cluster without a density
    model = HDBSCAN(min_cluster_size=smallest, min_samples=min(_NEIGHBOURS, smallest), copy=True)
    return model.fit_predict(points)


def _k_means(points: np.ndarray, k: int) -> np.ndarray:
    """(n,) labels; fewer than k different points make fewer clusters."""
    k = min(k, len(np.unique(points, axis=0)))
    return KMeans(k, n_init=3, random_state=0).fit_predict(points)


def stability(
    points: np.ndarray, found: np.ndarray, partition: Partition, progress: Progress = no_progress
) -> np.ndarray:
    """How well each cluster is found again in random halves of the points, see `Clusters`.

    The mean over 20 halves, at most 2,000 points each, without copies, which are a scheme of
    Hennig's too: to a density, the copies of a bootstrap sample would be clusters of their own.

    Args:
        points: (N, D).
        found: (N,) cluster of each, -1 for none.
        partition: that found them, (n, D) to (n,).
        progress: called with the share of the work that is done, from 0.3 to 0.9.

    Returns:
        (K,) from 0 to 1.
    """
    rng = np.random.default_rng(1)
    clusters = found.max(initial=-1) + 1
    similarity = np.full((_RESAMPLES, clusters), np.nan)
    for number in range(_RESAMPLES):
        rows = _random_rows(len(points), min(_RESAMPLE_SIZE, -(-len(points) // 2)), rng)
        similarity[number] = _best_jaccard(found[rows], partition(points[rows]), clusters)
        progress(0.3 + 0.6 * (number + 1) / _RESAMPLES)
    seen = ~np.isnan(similarity)
    return np.nansum(similarity, axis=0) / np.maximum(1, seen.sum(axis=0))


def _best_jaccard(found: np.ndarray, again: np.ndarray, clusters: int) -> np.ndarray:
    """(K,) largest |A & B| / |A | B| of each cluster; NaN for one without a point among them."""
    table = np.zeros((clusters + 1, again.max(initial=-1) + 2))
    np.add.at(table, (found, again), 1)  # -1, none, is the last row and the last column
    sizes, others = table.sum(axis=1)[:-1], table.sum(axis=0)[:-1]
    common = table[:-1, :-1]
    jaccard = common / np.maximum(1, sizes[:, None] + others - common)
    return np.where(sizes > 0, jaccard.max(axis=1, initial=0), np.nan)


def _clusters(
    features: np.ndarray, rows: np.ndarray, found: np.ndarray, stability: np.ndarray,
    progress: Progress, *, nearest: bool,
) -> Clusters:  # fmt: skip
    """Clusters of the sample, largest first, and the images outside it put to them."""
    order = np.argsort(-np.bincount(found[found >= 0], minlength=len(stability)), kind="stable")
    sample = normalise_rows(features[rows])
    parts = [sample[found == cluster] for cluster in order]
    centres = np.array([part.mean(axis=0) for part in parts], np.float32)
    centres = centres.reshape(len(parts), features.shape[1])
    radii = np.array([_radius(p, c) for p, c in zip(parts, centres, strict=True)], np.float32)
    labels = _in_balls(features, centres, np.full_like(radii, np.inf) if nearest else radii)
    rank = np.append(np.argsort(order), -1)  # -1, none, stays none
    labels[rows] = rank[found]
    distances = np.full(len(features), np.inf, np.float32)
    for cluster, centre in enumerate(centres):
        own = np.flatnonzero(labels == cluster)
        distances[own] = np.linalg.norm(normalise_rows(features[own]) - centre, axis=1)
    progress(1.0)
    return Clusters(labels, distances, centres, radii, stability[order])


def _radius(members: np.ndarray, centre: np.ndarray) -> float:
    distances = np.linalg.norm(members - centre, axis=1)
    return float(np.quantile(distances, HELD, method="higher"))


def _in_balls(features: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(N,) the nearest of the centres within its radius, or -1."""
    labels = np.full(len(features), -1)
    if len(centres) == 0:
        return labels
    squares = np.square(centres).sum(axis=1)
    for start in range(0, len(features), _CHUNK):
        unit = normalise_rows(features[start : start + _CHUNK])
        found = np.square(unit).sum(axis=1)[:, None] + squares - 2 * unit @ centres.T
        distances = np.sqrt(np.maximum(found, 0))
        distances[distances > radii + 1e-3] = np.inf  # float32 rounds distances near 0 by as much
        nearest = distances.argmin(axis=1)
        held = np.isfinite(distances[np.arange(len(unit)), nearest])
        labels[start : start + _CHUNK] = np.where(held, nearest, -1)
    return labels
