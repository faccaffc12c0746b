"""Which thresholds are candidates."""

import numpy as np

_USUAL = 0.25
_USUAL_PART = 0.65
_TAIL, _TAIL_PART = 0.02, 0.15
_BEYOND_PART = 0.05


def threshold_grid(calibration: np.ndarray, size: int) -> np.ndarray:
    """Quantiles of calibration scores, close together where thresholds are useful, and some beyond.

    Of the candidates 65% lie where less than a quarter of known images is flagged, the closer
    together the smaller that share, evenly in its root (with 200 of them, 0.08 points apart around
    1%, 0.25 around 10%). Another 15% are evenly spaced in score over the largest 2%: there
    calibration images are few, and many unknown ones can lie between two of them. Others lie where
    up to all are flagged, the first below all calibration scores. A few lie beyond the largest: as
    far apart as the scores of the upper quarter are on average, doubling.

    The grid is fixed before the stream begins. So evidence at every threshold counts from the
    first item on, and all of it is valid. Adding a threshold later would be too, if it took over
    the wealth of the neighbour whose null hypothesis its own implies, but closeness where it
    matters costs little from the start.

    Args:
        calibration: (n,) scores of held-out known images.
        size: about how many; ties among scores make them fewer.

    Returns:
        (K,) float64, strictly ascending.

    Raises:
        ValueError: when there are no scores, or some that are not finite, or fewer than 10
            thresholds are asked for.
    """
    if len(calibration) == 0 or not np.isfinite(calibration).all() or size < 10:
        raise ValueError(
            f"A grid of {size} thresholds from {len(calibration)} scores: give at least one score, "
            "finite ones only, and ask for at least 10 thresholds."
        )
    scores = np.sort(np.asarray(calibration, float))
    usual, tail, beyond = (round(part * size) for part in (_USUAL_PART, _TAIL_PART, _BEYOND_PART))
    flagged = np.concatenate(
        [
            _USUAL * np.linspace(0, 1, usual) ** 2,
            np.linspace(_USUAL, 1, size - usual - tail - beyond)[1:],
        ]
    )
    within = np.quantile(scores, 1 - flagged, method="inverted_cdf")
    spread = scores[-1] - np.quantile(scores, 1 - _USUAL)
    unit = max(spread / max(1, round(_USUAL * len(scores))), np.spacing(abs(scores[-1])))
    steps = unit * 2.0 ** np.arange(beyond)
    lowest = np.nextafter(scores[0], -np.inf)
    even = np.linspace(np.quantile(scores, 1 - _TAIL), scores[-1], tail)
    return np.unique(np.concatenate([[lowest], within, even, scores[-1] + np.cumsum(steps)]))
