"""P-values that hold for the calibration set at hand, not only on average over such sets.

Bates, Candes, Lei, Romano and Sesia (AoS, 2023). Of known images with p = j/(n + 1), the share
that is at least as odd lies below the j-th smallest of n independent uniform numbers. Whatever
bounds b_1 <= ... <= b_n hold for all of those at once, with probability 1 - delta over calibration
sets, therefore turn p into a p-value b_j that holds for this set, at every level at once.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

DELTA = 0.05
_DRAWS = 10_000
_AT_ONCE = 200
_SURE = 0.999


def simes_bounds(n: int, delta: float = DELTA) -> np.ndarray:
    """(n,) bounds by the generalised Simes inequality (Sarkar, AoS 2008), with k = n / 2.

    b_{n+1-i} = 1 - delta^(1/k) (i(i-1)...(i-k+1) / (n(n-1)...(n-k+1)))^(1/k). Sharp for
    small p; of the p-values the larger half becomes 1.
    """
    k = max(1, n // 2)
    i = np.arange(n, k - 1, -1)
    log_ratio = gammaln(i + 1) - gammaln(i - k + 1) - gammaln(n + 1) + gammaln(n - k + 1)
    bounds = np.ones(n)
    bounds[: len(i)] = 1 - np.exp((np.log(delta) + log_ratio) / k)
    return bounds


def dkw_bounds(n: int, delta: float = DELTA) -> np.ndarray:
    """(n,) bounds of constant width: b_i = (i - 1)/n + sqrt(log(1/delta) / 2n), at most 1.

    One side of the Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant (Annals of
    Probability, 1990). Just below U_(i) the empirical share is (i - 1)/n, hence not i/n.

    Raises:
        ValueError: when delta > 1/2, where one side alone needs twice the probability.
    """
    if delta > 0.5:
        raise ValueError(f"The one-sided inequality needs delta <= 1/2, not {delta}.")
    return np.minimum(1, np.arange(n) / n + np.sqrt(np.log(1 / delta) / (2 * n)))


@lru_cache(maxsize=4_096)  # by class, each category has a size of its own
def monte_carlo_bounds(n: int, delta: float = DELTA) -> np.ndarray:
    """(n,) read-only bounds of constant width in standard deviations, from simulated sets.

    b_i = m_i + c sd_i with the mean and deviation of the i-th of n uniform order statistics; c is
    the smallest that holds for a share 1 - delta of simulated sets: the shape that Bates and
    others reach for large n, made exact for this n. Costs 0.5 s for n = 4,000.
    """
    mean = np.arange(1, n + 1) / (n + 1)
    deviation = np.sqrt(mean * (1 - mean) / (n + 2))
    rng = np.random.default_rng(0)
    largest = []
    for _ in range(_DRAWS // _AT_ONCE):
        # Order statistics of uniform numbers without sorting: normalised sums of exponentials.
        sums = np.cumsum(rng.standard_exponential((_AT_ONCE, n + 1)), axis=1)
        uniform = sums[:, :-1] / sums[:, -1:]
        largest.append(((uniform - mean) / deviation).max(axis=1))
    width = safe_quantile(np.concatenate(largest), 1 - delta)
    bounds = np.maximum.accumulate(np.minimum(1, mean + width * deviation))
    bounds.setflags(write=False)
    return bounds


METHODS: dict[str, Callable[[int], np.ndarray]] = {
    "monte_carlo": monte_carlo_bounds,
    "simes": simes_bounds,
    "dkw": dkw_bounds,
}


def conditional_p_values(p_values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(N,) conformal p-values to (N,) that hold for this calibration set.

    Args:
        p_values: (N,) multiples of 1/(n + 1); p = j/(n + 1) becomes b_j, and 1 stays 1.
        bounds: (n,) by one of `METHODS`.

    Raises:
        ValueError: when a p-value is not of a calibration set of n.
    """
    exact = p_values * (len(bounds) + 1)
    ranks = np.rint(exact)
    possible = (np.abs(exact - ranks) <= 1e-6) & (ranks >= 1) & (ranks <= len(bounds) + 1)
    if not possible.all():
        raise ValueError(f"The p-values are not those of {len(bounds)} calibration images.")
    return np.append(bounds, 1.0)[ranks.astype(int) - 1]


def safe_quantile(simulated: np.ndarray, level: float) -> float:
    """A value that a new draw stays under, or at, with probability >= `level`.

    The order statistic is taken so high that chance in the (S,) simulated values makes the
    statement false in fewer than 1 in 1,000 simulations (the count below the quantile is binomial).
    """
    rank = int(binom.ppf(_SURE, len(simulated), level))
    return float(np.sort(simulated)[min(rank, len(simulated) - 1)])
