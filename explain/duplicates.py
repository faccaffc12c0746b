"""Training images that are one picture twice, and training pictures among the held-out images."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from models.activations import Neighbours
from models.bank import CalibrationSet
from models.observed import Blobs, ObservedSet

SIDE = 16
SHARE_OF_USUAL = 0.03
LARGEST_UNLIKENESS = 0.02
_NEAREST = 10
_CHUNK = 65_536


@dataclass(frozen=True)
class Duplicates:
    """Pairs of one picture; unlikeness is one minus the correlation of small gray thumbnails.

    Attributes:
        pairs: (P, 2) int64, rows of the Bank, the first below the second.
        unlikeness: (P,) float32, 0 where all pixels are equal.
        exact: (P,) bool, whether all pixels are equal. Of m equal images, m - 1 pairs are given.
        groups: (N,) int64, the number of each training image's group of copies, -1 for none.
        leaks: (Q, 2) int64, a row of the Bank and one of the calibration set.
        leak_unlikeness: (Q,) float32.
        distance_limit: of unit features; only images no farther apart were compared.
    """

    pairs: np.ndarray
    unlikeness: np.ndarray
    exact: np.ndarray
    groups: np.ndarray
    leaks: np.ndarray
    leak_unlikeness: np.ndarray
    distance_limit: float


def near_duplicates(
    images: ObservedSet, neighbours: Neighbours, calibration: CalibrationSet
) -> Duplicates:
    """Find copies: equal pixels, or near in features and confirmed on thumbnails.

    Nearness in features alone means "alike to the model", which is what classes are made of. So
    pairs as near as half of all images are to their nearest are only candidates. A candidate is a
    copy when its thumbnails differ by less than 3% of what both usually do from their neighbours
    (a ratio test, after Lowe, IJCV 2004): trousers look alike, and copies of them more so.

    Survives recompression, changes of brightness and contrast, and slight noise. Copies that are
    mirrored, moved or cropped are not found, nor those of a picture that half of its neighbours
    are copies of, unless their pixels are equal.

    Args:
        images: N training images.
        neighbours: (N, k) of each among the others (`Bank.locate_own`).
        calibration: whose copies of training images are the leaks; none is exact, as a
            `CalibrationSet` refuses those.
    """
    located = calibration.activations.neighbours
    assert located is not None  # a CalibrationSet is located
    distance_limit = _median_nearest(neighbours)
    gray, held_out = _gray(images.thumbnails), _gray(calibration.images.thumbnails)

    candidates = np.sort(_candidates(neighbours, distance_limit), axis=1)
    candidates = np.unique(candidates[candidates[:, 0] < candidates[:, 1]], axis=0)
    near, unlike = _alike(candidates, gray, gray)
    usual = np.minimum(*(_usual(near[:, side], gray, neighbours, gray) for side in (0, 1)))
    copies = unlike < SHARE_OF_USUAL * usual
    same = _same_pixels(images.ids)
    pairs, first = np.unique(
        np.concatenate([same, near[copies]]), axis=0, return_index=True
    )  # equal pixels come first, and are kept

    leaks, leak_unlike = _alike(_candidates(located, distance_limit)[:, ::-1], gray, held_out)
    usual = _usual(leaks[:, 1], held_out, located, gray)
    leaked = leak_unlike < SHARE_OF_USUAL * usual
    return Duplicates(
        pairs=pairs,
        unlikeness=np.append(np.zeros(len(same), np.float32), unlike[copies])[first],
        exact=first < len(same),
        groups=_connected(pairs, len(images)),
        leaks=leaks[leaked],
        leak_unlikeness=leak_unlike[leaked],
        distance_limit=distance_limit,
    )


def _median_nearest(neighbours: Neighbours) -> float:
    """Of the distances from each image to its nearest other; 0 where there is none."""
    own = neighbours.rows == np.arange(len(neighbours.rows))[:, None]
    nearest = np.where(own, np.inf, neighbours.distances).min(axis=1, initial=np.inf)
    return float(np.median(nearest)) if np.isfinite(nearest).any() else 0.0


def _candidates(neighbours: Neighbours, limit: float) -> np.ndarray:
    """(P, 2): an image, and one of its ten nearest that is no farther than the limit."""
    image, place = np.nonzero(neighbours.distances[:, :_NEAREST] <= limit)
    return np.stack([image, neighbours.rows[image, place]], axis=1)


def _alike(
    pairs: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of hardly unlike thumbnails, (P', 2), and how unlike they are, (P',)."""
    unlike = _unlikeness(pairs, first, second)
    chosen = unlike < LARGEST_UNLIKENESS
    return pairs[chosen], unlike[chosen]


def _usual(
    rows: np.ndarray, asked: np.ndarray, neighbours: Neighbours, gray: np.ndarray
) -> np.ndarray:
    """(P,) float32: the median unlikeness between an image and its neighbours.

    Args:
        rows: (P,) of `asked`.
        asked: (n, S S) uint8 thumbnails.
        neighbours: (n, k) of them.
        gray: (N, S S) uint8 thumbnails of the Bank.
    """
    different, place = np.unique(rows, return_inverse=True)
    count = neighbours.rows.shape[1]
    pairs = np.stack([np.repeat(different, count), neighbours.rows[different].ravel()], axis=1)
    unlike = _unlikeness(pairs, asked, gray).reshape(len(different), count)
    return np.median(unlike, axis=1)[place]


def _unlikeness(pairs: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(P,) float32, one minus the correlation; one for a picture of a single shade."""
    unlike = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _CHUNK):
        rows = pairs[start : start + _CHUNK]
        a, b = first[rows[:, 0]].astype(np.float32), second[rows[:, 1]].astype(np.float32)
        a -= a.mean(axis=1, keepdims=True)
        b -= b.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        unlike[start : start + _CHUNK] = 1 - (a * b).sum(axis=1) / np.maximum(lengths, 1e-6)
    return unlike


def _gray(thumbnails: Blobs) -> np.ndarray:
    """(N, S S) uint8."""
    gray = np.empty((len(thumbnails), SIDE * SIDE), np.uint8)
    for row in range(len(thumbnails)):
        with Image.open(io.BytesIO(thumbnails[row])) as image:
            small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        gray[row] = np.asarray(small).ravel()
    return gray


def _same_pixels(ids: np.ndarray) -> np.ndarray:
    """(P, 2): each image and the next one of equal pixels, which joins all of them in a row."""
    keys = np.ascontiguousarray(ids).view("S32").ravel()
    order = np.argsort(keys, kind="stable")
    equal = keys[order[1:]] == keys[order[:-1]]
    return np.stack([order[:-1][equal], order[1:][equal]], axis=1)


def _connected(pairs: np.ndarray, count: int) -> np.ndarray:
    """(N,) int64: groups numbered from 0 by their first image, -1 for an image in no pair."""
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    groups = np.full(count, -1, np.int64)
    paired = np.unique(pairs)
    _, place, number = np.unique(component[paired], return_index=True, return_inverse=True)
    groups[paired] = np.argsort(np.argsort(place))[number]
    return groups
