"""False discoveries over a batch."""

import numpy as np


def benjamini_hochberg(p_values: np.ndarray, rate: float) -> np.ndarray:
    """(N,) p-values to (N,) bool: a selection with expected share of false ones <= rate.

    Benjamini and Hochberg (JRSS B, 1995); it holds for conformal p-values that share one
    calibration set, on average over such sets (Bates, Candes, Lei, Romano and Sesia, AoS 2023).
    The batch must be fixed before looking at it.
    """
    n = len(p_values)
    order = np.argsort(p_values)
    passes = np.flatnonzero(p_values[order] <= rate * np.arange(1, n + 1) / n)
    selected = np.zeros(n, bool)
    if len(passes):
        selected[order[: passes[-1] + 1]] = True
    return selected


def largest_batch_for_lone_outlier(rate: float, calibration_size: int) -> int:
    """The batch size above which a single outlier can no longer be selected.

    The smallest p-value is 1 / (n + 1), and a lone one must be <= rate / batch.
    """
    return int(rate * (calibration_size + 1) * (1 + 1e-12))
