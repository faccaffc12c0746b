"""Whether images still come as the calibration images did, without any label."""

import numpy as np

from ood.exchangeability import JUMPER_START, jump
from ood.monitoring.choosing import Restorable
from ood.monitoring.coins import coin

_EDGES = 1_000
OWN_COINS = 0x5DEECE66D  # so that ties and audits of one stream are drawn apart


class Drift(Restorable):
    """Bets on the ranks of one number an image among calibration images and the images before it.

    The number is a score, or an output of the classifier: its confidence, or the class it predicts.
    Each image's p-value is its rank among all before it and itself, ties broken by chance:
    independent and uniform while images are exchangeable with the calibration images (Vovk,
    Gammerman and Shafer, 2005). Ranks against a fixed calibration set would depend on each other
    and alarm falsely. Memory is constant: only the numbers of images between up to 1,000 evenly
    spaced calibration images are kept. Where an image falls among those of one cell is drawn by
    chance, which is how it falls if all are exchangeable, so that p-values stay exact (cells are
    the colours of a Polya urn); a shift within one cell goes unnoticed.

    On the p-values bets the Simple Jumper, see `jump`. One stream of wealth gives three readings:

    - `log_wealth`: P(it ever reaches ln(1 / error)) <= error (Ville, 1939), for the whole life of
      the stream. The longer all is well, the more a later change has to make up for.
    - `log_e_sr` and `log_e_cusum`: bettors that start anew with every image, all added up, or only
      the best of them (Shin, Ramdas and Rinaldo, New England Journal of Statistics in Data Science
      2024, definitions 2.3 and 2.6). A false alarm at ln(1 / rate) comes, on average, not before
      1 / rate images; sooner or later one comes.

    What looks the same to the number is not noticed: known images that are judged differently
    from now on, say.

    Attributes:
        images: so far.
        log_peak: the largest `log_wealth` so far.
    """

    def __init__(self, calibration: np.ndarray, seed: int) -> None:
        """Of (n,) values of calibration images; the seed breaks ties.

        Raises:
            ValueError: when there are none or some that are no numbers.
        """
        if len(calibration) == 0 or np.isnan(calibration).any():
            raise ValueError(
                f"{len(calibration)} calibration values, {np.isnan(calibration).sum()} of them "
                "undefined: give at least one, and all defined."
            )
        chance = np.random.default_rng(seed).uniform(size=len(calibration))
        order = np.lexsort([chance, calibration])
        ranks = np.unique(np.linspace(0, len(order) - 1, _EDGES).astype(int))
        self._edges = np.asarray(calibration, float)[order[ranks]]
        self._edge_chances = chance[order[ranks]]
        # Where in the order of all images the next one can come, cell by cell.
        self._places = np.diff(ranks, prepend=-1, append=len(order))
        self._shares = np.array(JUMPER_START)
        self._seed = seed
        self.images = 0
        self.log_wealth = self.log_peak = 0.0
        self.log_e_sr = self.log_e_cusum = -np.inf

    def observe(self, value: float) -> None:
        """Bet on the next image.

        Raises:
            ValueError: when its value is undefined; nothing has changed then.
        """
        if np.isnan(value):
            raise ValueError("The value is undefined (NaN).")
        shares = jump(self._shares.tolist(), self._p_value(value))
        factor = sum(shares)
        # Kept at a sum of 1, with the wealth as a logarithm, so that nothing overflows.
        self._shares = np.array(shares) / factor
        log_factor = float(np.log(factor))
        self.log_wealth += log_factor
        self.log_peak = max(self.log_peak, self.log_wealth)
        self.log_e_sr = float(np.logaddexp(self.log_e_sr, 0.0)) + log_factor
        self.log_e_cusum = max(self.log_e_cusum, 0.0) + log_factor

    def _p_value(self, value: float) -> float:
        chance, within = (coin(self._seed ^ OWN_COINS, 2 * self.images + side) for side in (0, 1))
        first, last = (int(np.searchsorted(self._edges, value, side)) for side in ("left", "right"))
        # Equal values are ordered by numbers drawn for them; so no image ever is at an edge.
        cell = first + int(np.searchsorted(self._edge_chances[first:last], chance))
        larger = int(self._places[cell + 1 :].sum())
        p = (larger + within * int(self._places[cell])) / int(self._places.sum())
        self._places[cell] += 1
        self.images += 1
        return p
