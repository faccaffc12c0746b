"""The training images, and the images held out from training.

Two types, so that no threshold can come from the images that a detector was fitted on.
"""

from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np

from models.activations import Activations, Head, Neighbours
from models.observed import ObservedSet

NEIGHBOURS = 50
_CHUNK = 16_384


class NotHeldOut(ValueError):
    """Calibration images that the Bank has too."""


@dataclass(frozen=True)
class Bank:
    """What the classifier's pass left behind of its training images.

    Attributes:
        images: N training images.
        head: the classifier's last linear layer.
    """

    images: ObservedSet
    head: Head

    @property
    def num_classes(self) -> int:
        """C, from the head."""
        return len(self.head.bias)

    def locate(self, activations: Activations) -> Activations:
        """The same activations with their nearest training images, by one exact search.

        `min(NEIGHBOURS, N)` neighbours each. One search serves detection, explanation and the map.
        """
        queries = normalise_rows(activations.features)
        # Below 8 queries faiss's own loop is faster, above it a matrix product is; its
        # threshold counts queries times dimensions and is far too high as shipped.
        faiss.cvar.distance_compute_blas_threshold = 8 * queries.shape[1]
        k = min(NEIGHBOURS, len(self.images))
        similarity, rows = self._index.search(queries, k)
        distances = np.sqrt(np.maximum(2 - 2 * similarity, 0))
        return activations.with_neighbours(Neighbours(rows=rows, distances=distances))

    @cached_property
    def _index(self) -> faiss.IndexFlatIP:
        features = self.images.activations.features
        index = faiss.IndexFlatIP(features.shape[1])
        for start in range(0, len(features), _CHUNK):
            index.add(normalise_rows(features[start : start + _CHUNK]))
        return index


@dataclass(frozen=True)
class CalibrationSet:
    """Held-out images of the known classes, located in the Bank.

    Attributes:
        images: n images, none of which is in the Bank.
        activations: theirs, with neighbours.
        bank: the Bank they were held out from.

    Raises:
        NotHeldOut: when there are none, or some are in the Bank.
    """

    images: ObservedSet
    bank: Bank

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise NotHeldOut(
                "There are no calibration images. Without images held out from training, no "
                "error rate can be stated: give a folder of them."
            )
        shared = shared_ids(self.images, self.bank.images)
        if shared.any():
            raise NotHeldOut(
                f"{shared.sum()} of {len(shared)} calibration images are training images too "
                f"(first: {self.images.name(int(np.argmax(shared)))}). Hold them out of training."
            )

    @cached_property
    def activations(self) -> Activations:
        """Those of the images, located in the Bank."""
        return self.bank.locate(self.images.activations)


def shared_ids(images: ObservedSet, others: ObservedSet) -> np.ndarray:
    """(N,) bool: which of `images` have the very pixels of one of `others`."""
    return np.isin(_as_keys(images.ids), _as_keys(others.ids))


def normalise_rows(features: np.ndarray) -> np.ndarray:
    """(N, D) to rows of length one, float32; a row of zeros stays zero."""
    features = np.asarray(features, np.float32)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norms, np.finfo(np.float32).tiny)


def _as_keys(ids: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(ids).view("S32").ravel()
