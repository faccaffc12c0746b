"""The training images, and two kinds of images held out from training.

Three types, so that no threshold can come from images that a detector was fitted on.
"""

from dataclasses import dataclass
from functools import cached_property

import faiss
import numpy as np

from models.activations import Activations, Head, Neighbours
from models.observed import ObservedSet

NEIGHBOURS = 50
LARGEST_TUNING = 10_000
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
        return activations.with_neighbours(self._search(activations, NEIGHBOURS))

    def locate_own(self, rows: np.ndarray) -> Activations:
        """Training images among the *other* training images, as if they had just come in.

        A Bank of no more than `NEIGHBOURS` images has too few others, and gives each its own too.

        Args:
            rows: (n,) of the Bank.
        """
        activations = self.images.activations.take(rows)
        if len(self.images) <= NEIGHBOURS:
            return self.locate(activations)
        found = self._search(activations, NEIGHBOURS + 1)
        own = found.rows == rows[:, None]
        own[~own.any(axis=1), -1] = True  # hidden behind copies of itself
        others = Neighbours(
            rows=found.rows[~own].reshape(len(rows), -1),
            distances=found.distances[~own].reshape(len(rows), -1),
        )
        return activations.with_neighbours(others)

    def _search(self, activations: Activations, count: int) -> Neighbours:
        queries = normalise_rows(activations.features)
        # Below 8 queries faiss's own loop is faster, above it a matrix product is; its
        # threshold counts queries times dimensions and is far too high as shipped.
        faiss.cvar.distance_compute_blas_threshold = 8 * queries.shape[1]
        similarity, rows = self._index.search(queries, min(count, len(self.images)))
        return Neighbours(rows=rows, distances=np.sqrt(np.maximum(2 - 2 * similarity, 0)))

    @cached_property
    def _index(self) -> faiss.IndexFlatIP:
        features = self.images.activations.features
        index = faiss.IndexFlatIP(features.shape[1])
        for start in range(0, len(features), _CHUNK):
            index.add(normalise_rows(features[start : start + _CHUNK]))
        return index


@dataclass(frozen=True)
class _HeldOut:
    """Images of the known classes, none of which is in the Bank.

    Attributes:
        images: n images.
        bank: the Bank they were held out from.
        activations: theirs, with neighbours.

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

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def activations(self) -> Activations:
        """Those of the images, located in the Bank."""
        return self.bank.locate(self.images.activations)


class TuningSet(_HeldOut):
    """Held-out images that finish a detector: null distributions, temperatures, a choice.

    Whatever they have shaped needs a `CalibrationSet` of other images for its error rate.
    """


class CalibrationSet(_HeldOut):
    """Held-out images that no detector was fitted on; thresholds and p-values come from them only.

    The temperature of the confidence that is shown is fitted on them too; no p-value depends on it.
    """


def split_held_out(images: ObservedSet) -> tuple[np.ndarray, np.ndarray]:
    """Rows to tune with, a third but at most 10,000 images, and rows to calibrate with.

    Ordered by the sha256 of their pixels, which is as good as at random, is the same each time
    and keeps copies of an image together.

    Raises:
        NotHeldOut: when there are fewer than two different images.
    """
    keys, place = np.unique(_as_keys(images.ids), return_inverse=True)
    if len(keys) < 2:
        raise NotHeldOut(
            f"There are {len(keys)} different calibration images left. Some finish the detectors "
            "and others calibrate them: give at least two, and a thousand for a useful error rate."
        )
    tuned = place < min(max(1, len(keys) // 3), LARGEST_TUNING)
    return np.flatnonzero(tuned), np.flatnonzero(~tuned)


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
