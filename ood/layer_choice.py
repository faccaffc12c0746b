"""At which layer of the network images of a new class lie apart from the known ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import t
from sklearn.cluster import KMeans

from models.activations import Activations, Head
from models.bank import normalise_rows

IMAGES = 2_000
HIDDEN_SHARE = 0.1
_DOUBT = 0.01
PENULTIMATE = -1
_SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Layer:
    """How features are read at one layer, for clustering.

    Attributes:
        stage: number of the stage whose channel means are read; -1 for the penultimate features,
            which are read as they are.
        means: (K,) of the training images.
        deviations: (K,) of the training images, above 0.
    """

    stage: int
    means: np.ndarray
    deviations: np.ndarray

    @classmethod
    def penultimate(cls, activations: Activations) -> Self:
        """The input of the last linear layer."""
        width = activations.features.shape[1]
        return cls(PENULTIMATE, np.zeros(width, np.float32), np.ones(width, np.float32))

    @classmethod
    def of_stage(cls, stage: int, activations: Activations) -> Self:
        """Standardised channel means of a stage, after those of training images; at least one."""
        values = np.asarray(activations.means[stage], np.float32)
        return cls(stage, values.mean(axis=0), values.std(axis=0) + _SMALLEST_DEVIATION)

    def features(self, activations: Activations) -> np.ndarray:
        """(N, K) float32, of length one."""
        own = self.stage == PENULTIMATE
        return self.read(activations.features if own else activations.means[self.stage])

    def read(self, values: np.ndarray) -> np.ndarray:
        """(N, K) features or channel means, as the layer has them, to unit length, float32."""
        return normalise_rows((np.asarray(values, np.float32) - self.means) / self.deviations)


@dataclass(frozen=True)
class LayerChoice:
    """How well hidden classes stand out at each of L layers.

    Attributes:
        layers: L of them: the stages in order, and the penultimate one last.
        scores: (L, C) from 0 to 1, of each known class that was hidden; NaN for one without images.
    """

    layers: tuple[Layer, ...]
    scores: np.ndarray

    @property
    def best(self) -> int:
        """The penultimate layer, the last, unless a stage is ahead of it beyond doubt.

        That is: by a paired t-test over the classes, at 1% shared among the stages (Bonferroni);
        then the stage with the largest mean score. A higher mean alone is not to be trusted: what
        is hidden here has been learned, which a new class has not.
        """
        lead = self.scores[:-1] - self.scores[-1]
        lead = lead[:, np.isfinite(lead).all(axis=0)]
        classes = lead.shape[1]
        if classes < 2 or len(lead) == 0:
            return len(lead)
        errors = np.maximum(lead.std(axis=1, ddof=1) / np.sqrt(classes), 1e-9)
        ahead = t.sf(lead.mean(axis=1) / errors, classes - 1) <= _DOUBT / len(lead)
        return int(np.where(ahead, lead.mean(axis=1), 0).argmax()) if ahead.any() else len(lead)


def choose_layer(activations: Activations, labels: np.ndarray, head: Head) -> LayerChoice:
    """Hide each known class in turn, and see at which layers k-means finds it.

    2,000 images, a tenth of them of the hidden class and the rest of the others, are parted into as
    many clusters as there are classes; the score is the largest F1 of a cluster for the hidden
    class. (Troisemaine, Lemaire, Gosselin, Reiffers-Masson, Flocon-Cholet and Vaton, 2023,
    arXiv:2311.05440, choose by hiding known classes too, but train again without them.)

    Here the network has learned the class that is hidden, and its last layer would always look
    best. So the penultimate features are first projected to the span of the other classes' head
    weights, less their mean: what a head that never needed the class would keep of them, as at
    neural collapse (Papyan, Han and Donoho, PNAS 2020).

    Args:
        activations: of N training images.
        labels: (N,) their classes, below C.
        head: the classifier's last linear layer, C classes.

    Raises:
        ValueError: when lengths differ, there is no image, or an activation is not finite.
    """
    if len(labels) != len(activations) or len(labels) == 0:
        raise ValueError(f"{len(labels)} labels for {len(activations)} images; give some of both.")
    layers = (
        *(Layer.of_stage(stage, activations) for stage in range(len(activations.means))),
        Layer.penultimate(activations),
    )
    scores = np.full((len(layers), len(head.bias)), np.nan)
    for hidden in np.unique(labels):
        rows = _hiding(labels, int(hidden))
        sample = activations.take(rows)
        for number, layer in enumerate(layers):
            features = layer.features(sample)
            if not np.isfinite(features).all():
                raise ValueError("Activations of the training images are not all finite.")
            if layer.stage == PENULTIMATE:
                features = features @ _span_without(head, int(hidden))
            scores[number, hidden] = _found(features, labels[rows], int(hidden))
    return LayerChoice(layers, scores)


def _hiding(labels: np.ndarray, hidden: int) -> np.ndarray:
    """Rows of at most 2,000 images, a tenth of them hidden; the same each time."""
    rng = np.random.default_rng(hidden)
    novel, known = (rng.permutation(np.flatnonzero(part)) for part in _sides(labels, hidden))
    few = max(1, min(len(novel), round(HIDDEN_SHARE * min(IMAGES, len(labels)))))
    return np.sort(np.concatenate([novel[:few], known[: IMAGES - few]]))


def _sides(labels: np.ndarray, hidden: int) -> Sequence[np.ndarray]:
    return labels == hidden, labels != hidden


def _span_without(head: Head, hidden: int) -> np.ndarray:
    """(D, r) orthonormal: what tells the other classes from each other."""
    weight = np.delete(np.asarray(head.weight, np.float64), hidden, axis=0)
    if len(weight) == 0:
        return np.zeros((head.weight.shape[1], 1))
    _, values, directions = np.linalg.svd(weight - weight.mean(axis=0), full_matrices=False)
    return directions[values > 1e-6 * max(values[0], 1e-12)].T


def _found(features: np.ndarray, labels: np.ndarray, hidden: int) -> float:
    """Largest F1 of a cluster for the hidden class, 2 |A & B| / (|A| + |B|)."""
    points = normalise_rows(features) if features.shape[1] else np.zeros((len(features), 1))
    k = min(len(np.unique(labels)), len(np.unique(points, axis=0)))
    clusters = KMeans(k, n_init=2, random_state=0).fit_predict(points)
    sizes = np.bincount(clusters, minlength=k)
    common = np.bincount(clusters[labels == hidden], minlength=k)
    return float((2 * common / (sizes + (labels == hidden).sum())).max())
