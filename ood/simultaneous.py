"""How many of the flagged images are false alarms at most, at every level at once."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from scipy.special import betaln, gammaln

from ood.conditional import safe_quantile
from ood.conformal import largest_rank

_RANKS = 64
_DRAWS = 10_000


@dataclass(frozen=True)
class FalseDiscoveryEnvelope:
    """Bounds for the number of known images among the flagged, whatever level is chosen later.

    The p-values of known images that share one calibration set follow a Polya urn, whatever the
    detector (Gazin, Blanchard and Roquain, AISTATS 2024). With probability `confidence` over
    calibration sets and batches, at most bounds[g] known images have p <= ranks[g] / (n + 1), for
    all g at once; from those follow bounds for any set of images (Blanchard, Neuvial and Roquain,
    AoS 2020, by interpolation). For p-values of one calibration set, so not for a Mondrian one.

    Attributes:
        ranks: (G,) int, ascending.
        bounds: (G,) int, ascending.
        images: m, the largest batch they hold for.
        calibration_size: n.
    """

    ranks: np.ndarray
    bounds: np.ndarray
    images: int
    calibration_size: int

    @classmethod
    @lru_cache(maxsize=32)
    def simulate(cls, images: int, calibration_size: int, confidence: float = 0.95) -> Self:
        """Bounds that every rank exceeds with equal probability, small enough for all together.

        With fewer known images than m the counts are smaller, so the bounds hold for any batch of
        m. Costs under 0.1 s for m = 1,000.
        """
        ranks = np.unique(np.geomspace(1, calibration_size, _RANKS).round().astype(int))
        tails = _tails(images, ranks, calibration_size)
        rng = np.random.default_rng(0)
        # The urn in two steps: shares between the ranks are Dirichlet, counts multinomial.
        steps = np.diff(ranks, prepend=0, append=calibration_size + 1)
        shares = rng.dirichlet(steps, _DRAWS)
        counts = rng.multinomial(images, shares)[:, :-1].cumsum(axis=1)
        rarest = tails[np.arange(len(ranks)), counts].min(axis=1)
        local_level = -safe_quantile(-rarest, confidence)
        bounds = (tails >= local_level).sum(axis=1) - 1
        return cls(ranks, bounds, images, calibration_size)

    def bound(self, p_values: np.ndarray, level: float) -> int:
        """At most so many of the images with p <= level are known ones.

        The smallest, over ranks g, of those with p above g plus the bound at g.

        Args:
            p_values: (N,) of the batch, or of any selection from it.
            level: any, chosen with the p-values in view.

        Raises:
            ValueError: when there are more p-values than the envelope was simulated for.
        """
        if len(p_values) > self.images:
            raise ValueError(f"{len(p_values)} p-values, but the envelope is for {self.images}.")
        ranks = np.rint(p_values * (self.calibration_size + 1))
        flagged = np.sort(ranks[ranks <= largest_rank(level, self.calibration_size)])
        above = len(flagged) - np.searchsorted(flagged, self.ranks, side="right")
        return min(len(flagged), int((above + self.bounds).min()))


def _tails(images: int, ranks: np.ndarray, n: int) -> np.ndarray:
    """(G, m + 1): P(at least x of m known images have p <= rank / (n + 1)), beta-binomial."""
    x, k = np.arange(images + 1), ranks[:, None]
    log_choose = gammaln(images + 1) - gammaln(x + 1) - gammaln(images - x + 1)
    log_mass = log_choose + betaln(x + k, images - x + n + 1 - k) - betaln(k, n + 1 - k)
    # From the far end, so that small tails are sums of small terms and keep their digits.
    return np.exp(log_mass)[:, ::-1].cumsum(axis=1)[:, ::-1]
