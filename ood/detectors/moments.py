"""Class means and the covariance within classes, over a Bank of any size."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from models.activations import Activations
from models.bank import Bank
from ood.detectors.chunks import CHUNK, part, slices, sum_by_group

_ROUNDING = 2.0**-24  # of float32
_FLOAT32_NOISE = 1e-12  # of unit vectors, in variance
_SCARCE = 10  # images for each dimension


@dataclass(frozen=True)
class ClassMoments:
    """Of vectors of D numbers, K classes with training images; all float64.

    Attributes:
        centre: (D,), mean of all images.
        means: (K, D).
        frequencies: (K,), sum to 1.
        covariance: (D, D), within classes, positive definite.
    """

    centre: np.ndarray
    means: np.ndarray
    frequencies: np.ndarray
    covariance: np.ndarray


def class_moments(bank: Bank, vectors: Callable[[Activations], np.ndarray]) -> ClassMoments:
    """Two passes over the Bank: means, then what is left around them, so that nothing cancels.

    The covariance is the maximum-likelihood one, as the papers have it. Below 10 images for each
    dimension its inverse is mostly noise (its mean is N / (N - D - 1) too large), and it shrinks
    to a multiple of the identity by the amount of Ledoit and Wolf (J. Multivariate Analysis 2004,
    equation 14), which supposes no distribution. A ridge as large as what float32 may get wrong
    keeps directions in which nothing moves from dividing by zero, or by noise.

    Args:
        bank: N training images.
        vectors: activations of n images to (n, D) float32.
    """
    activations, labels = bank.images.activations, np.asarray(bank.images.labels)
    count, dim = len(labels), vectors(part(activations, slice(1))).shape[1]
    sums, scale = np.zeros((bank.num_classes, dim)), 0.0
    for rows in slices(count):
        chunk = vectors(part(activations, rows))
        sums += sum_by_group(chunk, labels[rows], bank.num_classes)
        scale += float(np.vdot(chunk, chunk)) / count
    sizes = np.bincount(labels, minlength=bank.num_classes)
    means = sums / np.maximum(sizes, 1)[:, None]
    near = means.astype(np.float32)
    covariance, fourth = np.zeros((dim, dim)), 0.0
    for rows in slices(count):
        around = vectors(part(activations, rows)) - near[labels[rows]]
        covariance += around.T @ around / count
        if count < _SCARCE * dim:
            squares = np.einsum("nd,nd->n", around, around, dtype=np.float64)
            fourth += float(np.square(squares).sum()) / count
    if count < _SCARCE * dim:
        covariance = _shrink(covariance, fourth, count)
    ridge = max(_product_error(covariance, count), _FLOAT32_NOISE * (scale or 1.0))
    present = sizes > 0
    return ClassMoments(
        centre=sums.sum(axis=0) / count,
        means=means[present],
        frequencies=sizes[present] / count,
        covariance=covariance + ridge * np.eye(dim),
    )


def _product_error(covariance: np.ndarray, count: int) -> float:
    """How far float32 products over chunks of `count` images may move an eigenvalue.

    Each number of a product of n rows is off by about sqrt(n) roundings of sqrt(v_i v_j), v the
    variances (Higham and Mary, SIAM J. Sci. Comput. 2019), and a matrix of such numbers is no
    longer than 2 sqrt(n max v sum v) of them (Bandeira and van Handel, Ann. Probab. 2016). That is
    90 for a full chunk; measured are 1 to 3, and 57 where copies of one image round alike.
    """
    v = np.diag(covariance)
    return float(2 * _ROUNDING * np.sqrt(min(count, CHUNK) * v.max() * v.sum()))


def _shrink(covariance: np.ndarray, fourth: float, count: int) -> np.ndarray:
    """Towards its mean variance; `fourth` is the mean of |x|^4 over the `count` images."""
    identity = np.eye(len(covariance)) * np.trace(covariance) / len(covariance)
    noise = (fourth - np.square(covariance).sum()) / count
    distance = np.square(covariance - identity).sum()
    amount = min(noise / distance, 1.0) if distance > 0 else 1.0
    return amount * identity + (1 - amount) * covariance
