"""How well a score separates unknown from known images. Larger score = more outlying."""

from dataclasses import astuple, dataclass

import numpy as np


@dataclass(frozen=True)
class DetectionMetrics:
    """The field's measures, each from 0 to 1, thresholds at every distinct score.

    Attributes:
        auroc: P(score of an OOD image > score of a known one), ties counted half.
        fpr95_id_positive: share of OOD images still accepted at the smallest threshold that
            accepts 95% of the known images (Liang, Li and Srikant, ICLR 2018).
        fpr95_ood_positive: share of known images flagged at the largest threshold that flags 95%
            of the OOD images (OpenOOD and pytorch-ood).
        aupr_in: average precision of finding known images.
        aupr_out: average precision of finding OOD images.
    """

    auroc: float
    fpr95_id_positive: float
    fpr95_ood_positive: float
    aupr_in: float
    aupr_out: float


def evaluate(id_scores: np.ndarray, ood_scores: np.ndarray) -> DetectionMetrics:
    """Measures of (n,) scores of known and (m,) scores of OOD images.

    Raises:
        ValueError: when either has no score, or a score is NaN.
    """
    places, known = _places(id_scores, ood_scores)
    groups = places.max() + 1
    return _measure(
        np.bincount(places[known], minlength=groups), np.bincount(places[~known], minlength=groups)
    )


def bootstrap(
    id_scores: np.ndarray,
    ood_scores: np.ndarray,
    draws: int = 200,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[DetectionMetrics, DetectionMetrics]:
    """Lower and upper ends of percentile intervals, resampling known and OOD images apart.

    For chance in which images were tested, not in how the network was trained (Efron and
    Tibshirani, 1993, chapter 13).

    Raises:
        ValueError: when either has no score, or a score is NaN.
    """
    places, known = _places(id_scores, ood_scores)
    groups = places.max() + 1
    rng = np.random.default_rng(seed)

    def resampled(side: np.ndarray) -> np.ndarray:
        return np.bincount(side[rng.integers(len(side), size=len(side))], minlength=groups)

    sides = places[known], places[~known]
    found = [astuple(_measure(*map(resampled, sides))) for _ in range(draws)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail], axis=0).tolist()
    return DetectionMetrics(*low), DetectionMetrics(*high)


def _places(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n + m,) place of each score among the distinct ones, ascending, and which are known."""
    scores = np.concatenate([id_scores, ood_scores])
    if not len(id_scores) or not len(ood_scores) or np.isnan(scores).any():
        raise ValueError(
            f"{len(id_scores)} known and {len(ood_scores)} OOD scores, {np.isnan(scores).sum()} of "
            "them NaN; there must be some of both and no NaN."
        )
    places = np.unique(scores, return_inverse=True)[1]
    return places, np.arange(len(scores)) < len(id_scores)


def _measure(known: np.ndarray, ood: np.ndarray) -> DetectionMetrics:
    """From (G,) counts of known and OOD images at each distinct score, ascending."""
    known_below, ood_below = known.cumsum(), ood.cumsum()
    n, m = known_below[-1], ood_below[-1]
    known_above, ood_above = n - known_below + known, m - ood_below + ood
    # In whole numbers, as 0.95 * 20 is not 19; the fewest images that are at least 95%.
    accepting = np.searchsorted(known_below, -(-19 * n // 20))
    flagging = len(ood) - 1 - np.searchsorted(ood_above[::-1], -(-19 * m // 20))
    return DetectionMetrics(
        auroc=float((ood * (2 * known_below - known)).sum() / (2 * n * m)),
        fpr95_id_positive=float(ood_below[accepting] / m),
        fpr95_ood_positive=float(known_above[flagging] / n),
        aupr_in=float((known * known_below / np.maximum(known_below + ood_below, 1)).sum() / n),
        aupr_out=float((ood * ood_above / np.maximum(known_above + ood_above, 1)).sum() / m),
    )
