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


def storey(p_values: np.ndarray, rate: float) -> np.ndarray:
    """(N,) p-values to (N,) bool: Benjamini-Hochberg that gains where much of a batch is unknown.

    Runs at rate / pi0, among p < 1/2, with pi0 = (1 + #{p >= 1/2}) / (N / 2), the estimated share
    of known images (Storey, Taylor and Siegmund, JRSS B 2004). pi0 is not cut off at 1:
    where it comes out larger the rate must shrink, or the false share exceeds it. For conformal
    p-values the false share is <= rate when n is odd and <= rate (1 + 1/n) when it is even
    (Marandon, Lei, Mary and Roquain, AoS 2024: their lambda must be a multiple of 1/(n + 1)).
    """
    over_pi0 = len(p_values) / 2 / (1 + (p_values >= 0.5).sum())
    return benjamini_hochberg(np.where(p_values < 0.5, p_values, np.inf), rate * over_pi0)


def conformal_e_values(
    scores: np.ndarray, calibration_scores: np.ndarray, rate: float
) -> np.ndarray:
    """(N,) scores of a batch to (N,) e-values, for `e_benjamini_hochberg`.

    e = 1{score >= T} (n + 1) / (1 + #{calibration >= T}), where T is the smallest of all scores at
    which N / (n + 1) (1 + #{calibration >= T}) / #{batch >= T} <= rate (Bashari, Epstein, Romano
    and Sesia, NeurIPS 2023). Summed over known images they are <= N on average, as T is a stopping
    time, read upwards, of the martingale #{known of the batch >= t} / (1 + #{calibration >= t}).
    T must range over calibration scores too: restricted to the batch's it is no stopping time.

    Args:
        scores: (N,) of the batch.
        calibration_scores: (n,) ascending.
        rate: where T stops; the rate of the selection, or below it when averaging detectors.
    """
    n = len(calibration_scores)
    candidates = np.unique(np.concatenate([calibration_scores, scores]))
    known = 1 + n - np.searchsorted(calibration_scores, candidates)
    batch = len(scores) - np.searchsorted(np.sort(scores), candidates)
    stops = np.flatnonzero(len(scores) * known <= rate * (1 + 1e-12) * (n + 1) * batch)
    if not len(stops) or not len(scores):
        return np.zeros(len(scores))
    return (scores >= candidates[stops[0]]) * ((n + 1) / known[stops[0]])


def e_benjamini_hochberg(e_values: np.ndarray, rate: float) -> np.ndarray:
    """(N,) e-values to (N,) bool: as Benjamini-Hochberg of 1 / e, however they depend.

    Wang and Ramdas (JRSS B, 2022). So e-values of several detectors may be averaged first.
    """
    with np.errstate(divide="ignore"):
        return benjamini_hochberg(1 / e_values, rate * (1 + 1e-12))


def largest_batch_for_lone_outlier(rate: float, calibration_size: int) -> int:
    """The batch size above which a single outlier can no longer be selected.

    The smallest p-value is 1 / (n + 1), and a lone one must be <= rate / batch.
    """
    return int(rate * (calibration_size + 1) * (1 + 1e-12))
