"""Why a Mahalanobis distance is large: in which directions, and in which layers.

d = x - m_c is the difference to the nearest class mean, S the covariance within classes. The
distance d' S^-1 d is a sum over the eigenvectors v of S with variances s,
sum_k (v_k'd)^2 / s_k. Any rotation of the whitened difference gives another such sum; the
eigenvectors are the one basis that is also at right angles before whitening, and in which normal
images vary independently, so that each term is a squared number of standard deviations.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import eigh, solve_triangular

from models.activations import Activations
from models.bank import Bank
from ood.detectors.chunks import part, slices
from ood.detectors.gaussian import Mahalanobis
from ood.detectors.layers import LONGEST_LAYER, LayeredMahalanobis

SAMPLE = 50_000
DIRECTIONS = 3
EXAMPLES = 4


@dataclass(frozen=True)
class Spread:
    """The principal directions in which images vary within their classes.

    Attributes:
        variances: (D,) descending, positive.
        directions: (D, D), a direction a column, orthonormal.
    """

    variances: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(cls, detector: Mahalanobis) -> Self:
        """From the whitening: S^-1 = W W', whose eigenvectors are those of S."""
        whitening = np.asarray(detector.whitening, np.float64)
        precisions, directions = eigh(whitening @ whitening.T)
        return cls(1 / precisions, directions)


@dataclass(frozen=True)
class ClassDistance:
    """How far one image is from the classes; squared distances in standard deviations.

    Attributes:
        nearest: index of the nearest class.
        distance: to it; the detector's score.
        runner_up: index of the next class; None when there is but one.
        runner_up_distance: to that; infinite when there is none.
        usual: median score of the calibration images.
    """

    nearest: int
    distance: float
    runner_up: int | None
    runner_up_distance: float
    usual: float


@dataclass(frozen=True)
class Direction:
    """One principal direction, turned so that the image lies on its positive side.

    Attributes:
        share: of the squared distance.
        deviations: how many standard deviations the image is from the mean of its nearest class.
        beyond: share of the nearest class's training images that lie at least as far along.
        compared: how many of those were looked at.
        along: rows of the Bank, up to 4, the furthest on the image's side first.
        opposite: rows of the Bank, up to 4, the furthest on the other side first.
    """

    share: float
    deviations: float
    beyond: float
    compared: int
    along: np.ndarray
    opposite: np.ndarray


def class_distance(
    detector: Mahalanobis,
    activations: Activations,
    row: int,
    classes: np.ndarray,
    calibration_scores: np.ndarray,
) -> ClassDistance:
    """The nearest class and the runner-up.

    Args:
        detector: fitted.
        activations: of N images.
        row: which of them.
        classes: (K,) the classes that have training images, ascending; the detector's means.
        calibration_scores: (n,) the detector's scores of the calibration images.
    """
    squares = np.square(_white_differences(detector, activations, row)).sum(axis=1)
    order = np.argsort(squares, kind="stable")
    several = len(order) > 1
    return ClassDistance(
        nearest=int(classes[order[0]]),
        distance=float(squares[order[0]]),
        runner_up=int(classes[order[1]]) if several else None,
        runner_up_distance=float(squares[order[1]]) if several else float("inf"),
        usual=float(np.median(calibration_scores)),
    )


def contributions(
    detector: Mahalanobis, spread: Spread, activations: Activations, row: int
) -> np.ndarray:
    """(D,) signed standard deviations along each direction; their squares sum to the distance."""
    difference = _difference(detector, _nearest_white(detector, activations, row))
    along: np.ndarray = difference @ spread.directions / np.sqrt(spread.variances)
    return along


def dominant_directions(
    detector: Mahalanobis, spread: Spread, activations: Activations, row: int, bank: Bank
) -> list[Direction]:
    """The 3 directions that make up most of the distance, with training images at their ends.

    Args:
        detector: one that reads features only, which is what a finished Bank keeps.
        spread: the detector's.
        activations: of N images.
        row: which of them.
        bank: the training images; an even sample of at most 50,000 is looked at.
    """
    labels = np.asarray(bank.images.labels)
    squares = np.square(_white_differences(detector, activations, row)).sum(axis=1)
    nearest = np.unique(labels)[squares.argmin()]
    deviations = contributions(detector, spread, activations, row)
    top = np.argsort(-np.abs(deviations), kind="stable")[:DIRECTIONS]
    top = top[deviations[top] != 0]
    axes = (spread.directions[:, top] * np.sign(deviations[top])).astype(np.float32)
    place = (_vector(detector, activations, row) - detector.centre) @ axes
    sampled, places = _places(detector, axes, bank)
    order = np.argsort(-places, axis=0, kind="stable")
    own = places[labels[sampled] == nearest]
    return [
        Direction(
            share=float(deviations[k] ** 2 / np.square(deviations).sum()),
            deviations=float(abs(deviations[k])),
            beyond=float((own[:, column] >= place[column]).sum() / max(len(own), 1)),
            compared=len(own),
            along=sampled[order[:EXAMPLES, column]],
            opposite=sampled[order[::-1][:EXAMPLES, column]],
        )
        for column, k in enumerate(top)
    ]


def layer_shares(detector: LayeredMahalanobis, activations: Activations, row: int) -> np.ndarray:
    """(L,) each stage's part of the squared distance, the features last; they sum to 1.

    The part of block b is d_b' (S^-1 d)_b. It is negative where a block makes the others'
    difference more ordinary than it would be alone. All zeros at the mean itself.
    """
    white = _nearest_white(detector, activations, row)
    total = float(np.square(white).sum())
    difference = _difference(detector, white)
    products = difference * (np.asarray(detector.whitening, np.float64) @ white)
    blocks = [*activations.means, *activations.maxima, activations.features]
    widths = [min(block.shape[1], LONGEST_LAYER) for block in blocks]
    sums = np.add.reduceat(products, np.cumsum([0, *widths[:-1]]))
    shares = np.zeros(len(activations.maxima) + 1)
    shares[: len(activations.means)] += sums[: len(activations.means)]
    shares += sums[len(activations.means) :]
    return shares / total if total else np.zeros_like(shares)


def _vector(detector: Mahalanobis, activations: Activations, row: int) -> np.ndarray:
    return np.asarray(detector.vectors(activations.take(np.array([row])))[0], np.float64)


def _white_differences(detector: Mahalanobis, activations: Activations, row: int) -> np.ndarray:
    """(K, D) float64, W'(x - m_c) of every class."""
    white = (_vector(detector, activations, row) - detector.centre) @ detector.whitening
    return white - np.asarray(detector.means, np.float64)


def _nearest_white(detector: Mahalanobis, activations: Activations, row: int) -> np.ndarray:
    """(D,) the shortest of the whitened differences."""
    differences = _white_differences(detector, activations, row)
    nearest: np.ndarray = differences[np.square(differences).sum(axis=1).argmin()]
    return nearest


def _difference(detector: Mahalanobis, white: np.ndarray) -> np.ndarray:
    """W'd back to d; W, an inverse transposed Cholesky factor, is upper triangular."""
    whitening = np.asarray(detector.whitening, np.float64)
    difference: np.ndarray = solve_triangular(whitening, white, trans="T")
    return difference


def _places(detector: Mahalanobis, axes: np.ndarray, bank: Bank) -> tuple[np.ndarray, np.ndarray]:
    """(n,) rows of the Bank, and (n, k) where they lie along the axes."""
    images = bank.images.activations
    step = -(-len(images) // SAMPLE)
    sample = part(images, slice(None, None, step))
    places = [
        (detector.vectors(part(sample, rows)) - detector.centre) @ axes
        for rows in slices(len(sample))
    ]
    return np.arange(0, len(images), step), np.concatenate(places)
