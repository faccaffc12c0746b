"""What each training image is worth to trees that were grown without it."""

from dataclasses import dataclass

import numpy as np
from sklearn.tree import DecisionTreeClassifier

BAGS = 100


@dataclass(frozen=True)
class OutOfBagValues:
    """How often trees grown without an image give it its own label.

    Attributes:
        values: (N,) float64, 0 to 1; NaN for an image that was in every bag.
        standard_errors: (N,) float64, over bags: how far another draw of as many bags would move
            the value, not how far other training images would. NaN below two bags.
        bags: (N,) int64, how many bags were without the image, about 37% of all.
    """

    values: np.ndarray
    standard_errors: np.ndarray
    bags: np.ndarray


def data_oob(
    features: np.ndarray, labels: np.ndarray, bags: int = BAGS, seed: int = 0
) -> OutOfBagValues:
    """Data-OOB with a random forest (Kwon and Zou, ICML 2023, equation 3).

    Each bag draws N of N images with replacement; its tree tries the root of D features at each
    split (Breiman, Machine Learning 2001), D times over D / root D faster than all of them. One
    tree is held at a time.

    Args:
        features: (N, D) finite.
        labels: (N,) integers.
        bags: number of trees.
        seed: of the draws and the trees.
    """
    features, labels = np.asarray(features, np.float32), np.asarray(labels)
    rng = np.random.default_rng(seed)
    count = len(labels)
    out, right = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for _ in range(bags):
        drawn = np.bincount(rng.integers(0, count, count), minlength=count)
        tree = DecisionTreeClassifier(max_features="sqrt", random_state=int(rng.integers(2**31)))
        tree.fit(features, labels, sample_weight=drawn)
        rows = np.flatnonzero(drawn == 0)
        if len(rows):
            out[rows] += 1
            right[rows] += tree.predict(features[rows]) == labels[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        values = right / out
        errors = np.sqrt(values * (1 - values) / (out - 1))
    return OutOfBagValues(values, np.where(out > 1, errors, np.nan), out)
