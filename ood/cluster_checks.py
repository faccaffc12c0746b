"""What speaks for a cluster being a class of its own, and what against it.

A cluster that was found will look apart from everything on the very images that formed it. The
tests here are honest only on images held out from the clustering.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial.distance import pdist, squareform
from scipy.special import entr, log_softmax

from models.bank import normalise_rows

STATISTICS = ("brightness", "contrast", "sharpness", "black", "size")
_DIP_SIZE = 200
_DIP_DRAWS = 500
_LARGEST_MMD = 500
_PERMUTATIONS = 499
_BLACK = 8


@dataclass(frozen=True)
class Separation:
    """How a cluster's held-out members differ from the nearest known class.

    Attributes:
        nearest: the known class whose mean is nearest to the cluster's centre.
        distance: between the two, in unit features, from 0 to 2.
        dip: largest distance of the distribution along the axis between them from a unimodal one,
            from 0 to 1/4; see `dip_statistic`.
        dip_p: its p-value; a small one says that members and class are two modes.
        mmd: squared maximum mean discrepancy; see `mmd_test`.
        mmd_p: its p-value; a large one says that members are like the class's images.
        members: held-out members that were tested.
    """

    nearest: int
    distance: float
    dip: float
    dip_p: float
    mmd: float
    mmd_p: float
    members: int


@dataclass(frozen=True)
class PredictionEntropy:
    """What the classifier says of a cluster's images, in nats from 0 to log C.

    Attributes:
        of_images: mean entropy of the images' softmax probabilities: how unsure it is of each.
        of_classes: entropy of the classes it predicts for them: how much it scatters them.
    """

    of_images: float
    of_classes: float


def separation(
    centre: np.ndarray, members: np.ndarray, known: np.ndarray, labels: np.ndarray, inspected: int
) -> Separation:
    """Dip and MMD tests of a cluster against the nearest known class.

    For the dip test members and known images are thinned until both stand for equally many
    inspected images. A tail of a known class, from which members were cut by being flagged, is then
    at most doubled, and stays a tail; in any other proportion it would be a second mode by its
    sheer number. So a class that is rare among the images inspected gets no small p-value.

    The MMD test can only speak against a class. Members are chosen by where they lie, so even a
    tail of the known class is unlike the class as a whole.

    Args:
        centre: (D,) mean of the unit features of the images that formed the cluster.
        members: (m, D) features of others that fell into it; none of those that formed it.
        known: (n, D) features of images of the known classes, held out from training, flagged or
            not.
        labels: (n,) their classes.
        inspected: how many images, flagged or not, the members were found among.

    Raises:
        ValueError: when a feature is not finite, there is no member or no known image, or there
            are fewer inspected images than members.
    """
    for name, features in (("members", members), ("known images", known)):
        if len(features) == 0 or not np.isfinite(features).all():
            raise ValueError(f"Of {len(features)} {name}, none or not all have finite features.")
    if inspected < len(members):
        raise ValueError(f"{len(members)} members cannot be among {inspected} images inspected.")
    unit, others = normalise_rows(members), normalise_rows(known)
    classes = np.unique(labels)
    means = np.array([others[labels == c].mean(axis=0) for c in classes])
    distances = np.linalg.norm(means - centre, axis=1)
    nearest = distances.argmin()
    own = others[labels == classes[nearest]]
    equal = min(inspected, len(known))
    sides = [
        part[even_rows(len(part), max(1, round(len(part) * equal / stands_for)))]
        for part, stands_for in ((unit, inspected), (own, len(known)))
    ]
    places = np.concatenate(sides) @ (centre - means[nearest])
    dip = dip_statistic(places)
    mmd, mmd_p = mmd_test(unit, own)
    return Separation(
        nearest=int(classes[nearest]), distance=float(distances[nearest]), dip=dip,
        dip_p=dip_p_value(dip, len(places)), mmd=mmd, mmd_p=mmd_p, members=len(members),
    )  # fmt: skip


def dip_statistic(values: np.ndarray) -> float:
    """Largest difference between the empirical distribution of (n,) and the nearest unimodal one.

    Hartigan and Hartigan (Annals of Statistics 1985), by Hartigan's algorithm (Applied Statistics
    1985, AS 217): between the greatest convex minorant and the least concave majorant lies the
    modal interval; it shrinks to where they are farthest apart, until what is outside of it fits
    worse than what is inside. From 1/(2n) to 1/4.

    Raises:
        ValueError: when there is no value, or one is not finite.
    """
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"The dip of {len(values)} values, of which none or not all are finite.")
    places, counts = np.unique(np.asarray(values, np.float64), return_counts=True)
    upper = counts.cumsum()  # n times the distribution at each place, and just before it
    lower = upper - counts
    low, high, dip = 0, len(places) - 1, 1.0
    while True:
        x, before, after = (part[low : high + 1] for part in (places, lower, upper))
        below, above = _convex_knots(x, before), _convex_knots(x, -after)
        minorant = np.interp(x, x[below], before[below])
        majorant = np.interp(x, x[above], after[above])
        knots = np.union1d(below, above)  # concave less convex is largest at one of them
        gap = (majorant - minorant)[knots]
        middle = knots[gap.argmax()]
        if gap.max() <= dip:
            break
        left = int(below[below <= middle][-1])
        right = int(above[above >= middle][0])
        # Images in one place are no misfit at the ends of the modal interval: a mode may be one.
        dip = max(dip, (after - minorant)[:left].max(initial=0))
        dip = max(dip, (majorant - before)[right + 1 :].max(initial=0))
        if left == 0 and right == len(x) - 1:
            break
        low, high = low + left, low + right
    return float(dip / (2 * len(values)))


def dip_p_value(dip: float, n: int) -> float:
    """Share of 500 samples of n uniform numbers with at least this dip, the sample itself counted.

    The uniform distribution is the unimodal one with the largest dips, as far as n is large
    (Hartigan and Hartigan, 1985, section 5). Of more than 200 numbers, sqrt(n) dip is compared with
    that of 200; it hardly depends on n any more.
    """
    null = _uniform_dips(min(n, _DIP_SIZE))
    at_least = (null >= dip * np.sqrt(max(1.0, n / _DIP_SIZE)) - 1e-12).sum()
    return float((1 + at_least) / (1 + len(null)))


def mmd_test(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Squared maximum mean discrepancy of two sets of vectors, and its permutation p-value.

    Gretton, Borgwardt, Rasch, Scholkopf and Smola (JMLR 2012, equation 5, the biased estimate) with
    a Gaussian kernel, whose bandwidth is the median distance. 499 permutations; exact when all are
    exchangeable. Of each set at most 500 rows are taken.

    Args:
        first: (m, D); m >= 1.
        second: (n, D); n >= 1.
    """
    parts = [part[even_rows(len(part), _LARGEST_MMD)] for part in (first, second)]
    squares = pdist(np.concatenate(parts), "sqeuclidean")
    bandwidth = np.median(squares[squares > 0]) if squares.any() else 1.0
    kernel = squareform(np.exp(-squares / (2 * bandwidth)))
    np.fill_diagonal(kernel, 1)
    weights = np.repeat([1 / len(parts[0]), -1 / len(parts[1])], [len(part) for part in parts])
    rng = np.random.default_rng(0)
    drawn = rng.permuted(np.tile(weights, (_PERMUTATIONS, 1)), axis=1)
    found = float(weights @ kernel @ weights)
    chance = ((drawn @ kernel) * drawn).sum(axis=1)
    return max(0.0, found), float((1 + (chance >= found - 1e-12).sum()) / (1 + _PERMUTATIONS))


def prediction_entropy(logits: np.ndarray) -> PredictionEntropy:
    """Of (n, C) logits of a cluster's images; n >= 1."""
    logs = log_softmax(np.asarray(logits, np.float64), axis=1)
    counts = np.bincount(logs.argmax(axis=1), minlength=logs.shape[1])
    return PredictionEntropy(
        of_images=float(entr(np.exp(logs)).sum(axis=1).mean()),
        of_classes=float(entr(counts / counts.sum()).sum()),
    )


def image_statistics(pixels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """What betrays a fault of the camera or the file, as `STATISTICS` names it.

    Args:
        pixels: (N, channels, S, S) uint8.
        sizes: (N, 2) width and height of the images as they came, in pixels.

    Returns:
        (N, 5) float64: mean of the pixels and their standard deviation, from 0 to 255; variance of
        the Laplacian of their mean over channels (Pech-Pacheco et al., ICPR 2000), which is small
        where an image is blurred; share of pixels below 8 in every channel; square root of the
        area in pixels.
    """
    gray = pixels.mean(axis=1, dtype=np.float64)
    flat = gray.reshape(len(gray), gray.shape[1] * gray.shape[2])
    framed = np.pad(gray, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = framed[:, 2:, 1:-1] + framed[:, :-2, 1:-1] + framed[:, 1:-1, 2:] + framed[:, 1:-1, :-2]
    return np.stack(
        [
            flat.mean(axis=1),
            flat.std(axis=1),
            (around - 4 * gray).var(axis=(1, 2)),
            (pixels.max(axis=1) < _BLACK).mean(axis=(1, 2)),
            np.sqrt(np.prod(np.asarray(sizes, np.float64), axis=1)),
        ],
        axis=1,
    )


def artefact_z(cluster: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """How far the cluster's typical image is from the typical normal one.

    Medians, in robust standard deviations of the normal images: 1.4826 MAD, or 1.2533 times the
    mean absolute deviation where more than half of them are the same (Iglewicz and Hoaglin, 1993).
    Above 3.5 they call a value an outlier. Infinite where normal images do not differ at all.

    Args:
        cluster: (n, 5) image statistics; n >= 1.
        normal: (m, 5) those of images of the known classes; m >= 1.

    Returns:
        (5,) float64, signed.
    """
    middle = np.median(normal, axis=0)
    deviations = np.abs(normal - middle)
    scale = 1.4826 * np.median(deviations, axis=0)
    scale = np.where(scale > 0, scale, np.sqrt(np.pi / 2) * deviations.mean(axis=0))
    difference = np.median(cluster, axis=0) - middle
    beyond = np.where(difference == 0, 0.0, np.copysign(np.inf, difference))
    return np.where(scale > 0, difference / np.where(scale > 0, scale, 1), beyond)


def even_rows(length: int, size: int) -> np.ndarray:
    """At most `size` of `length` rows, evenly spread."""
    return np.unique(np.linspace(0, length - 1, min(size, length)).round().astype(int))


def _convex_knots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rows of the points (x, y) that carry their greatest convex minorant; x ascends."""
    xs, ys = x.tolist(), y.tolist()
    knots: list[int] = []
    for i, (a, b) in enumerate(zip(xs, ys, strict=True)):
        while len(knots) > 1:
            p, q = knots[-2], knots[-1]
            if (ys[q] - ys[p]) * (a - xs[q]) < (b - ys[q]) * (xs[q] - xs[p]):
                break
            knots.pop()
        knots.append(i)
    return np.array(knots)


@lru_cache(maxsize=256)
def _uniform_dips(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    return np.array([dip_statistic(rng.uniform(size=n)) for _ in range(_DIP_DRAWS)])
