"""Where the classifier does worse than elsewhere, and which classes it saw too little of."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import hypergeom

RARE = 0.1


@dataclass(frozen=True)
class Subgroups:
    """How well G groups of held-out images are classified.

    Attributes:
        counts: (G,) int64, images in each.
        accuracy: (G,) float64; NaN where there is no image.
        low: (G,) float64, lower end of the Wilson interval.
        high: (G,) float64, upper end.
        p_values: (G,) float64; small = worse than the images of all other groups.
        worse: (G,) bool, among which at most the stated share is expected to be no worse.
    """

    counts: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_values: np.ndarray
    worse: np.ndarray


def find_worse_subgroups(
    groups: np.ndarray, labels: np.ndarray, predicted: np.ndarray, count: int = 0,
    rate: float = 0.05,
) -> Subgroups:  # fmt: skip
    """Accuracy of every group, and the groups that do worse than the rest.

    Each group is compared with all others by Fisher's exact test, one-sided: were a group no worse,
    its right answers would be a draw without replacement from everyone's. The groups called worse
    are chosen by Benjamini and Hochberg (JRSS B, 1995). Valid for groups that were not made by
    looking at what was right: classes, clusters of features, a column of the user's.

    Args:
        groups: (n,) int from 0, the group of each held-out image.
        labels: (n,).
        predicted: (n,).
        count: G, where the last groups may be empty.
        rate: expected share of false ones among the groups called worse, for independent or
            positively dependent p-values.

    Raises:
        ValueError: when lengths differ, or a group is negative.
    """
    groups, labels, predicted = map(np.asarray, (groups, labels, predicted))
    if not groups.shape == labels.shape == predicted.shape or groups.ndim != 1:
        raise ValueError(
            f"groups {groups.shape}, labels {labels.shape} and predicted {predicted.shape} must "
            "all be (n,)."
        )
    if groups.min(initial=0) < 0:
        raise ValueError(f"Groups are numbered from 0; one is {groups.min()}.")
    counts = np.bincount(groups, minlength=count)
    right = np.bincount(groups, labels == predicted, count).astype(np.int64)
    low, high = wilson_interval(right, counts)
    with np.errstate(invalid="ignore"):
        accuracy = right / counts
    p_values = hypergeom.cdf(right, counts.sum(), right.sum(), counts)
    return Subgroups(counts, accuracy, low, high, p_values, _benjamini_hochberg(p_values, rate))


def wilson_interval(
    successes: np.ndarray, trials: np.ndarray, coverage: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Ends (...) of the interval for a share (Wilson, JASA 1927); 0 and 1 without trials."""
    z2 = ndtri((1 + coverage) / 2) ** 2
    centre = (successes + z2 / 2) / (trials + z2)
    half = np.sqrt(z2 * (successes * (trials - successes) / np.maximum(trials, 1) + z2 / 4))
    half /= trials + z2
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)


def rare_classes(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(k,) classes with fewer images than a tenth of the median class, rarest first.

    The median rather than the mean, which one huge class would raise.
    """
    counts = np.bincount(labels, minlength=num_classes)
    order = np.argsort(counts, kind="stable")
    return order[counts[order] < RARE * np.median(counts)]


def _benjamini_hochberg(p_values: np.ndarray, rate: float) -> np.ndarray:
    """(G,) bool."""
    count = len(p_values)
    order = np.argsort(p_values)
    passes = np.flatnonzero(p_values[order] <= rate * np.arange(1, count + 1) / count)
    chosen = np.zeros(count, bool)
    chosen[order[: passes.max(initial=-1) + 1]] = True
    return chosen
