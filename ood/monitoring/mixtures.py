"""Wealth spread over many constant bets, started now or at every time to come."""

from enum import IntEnum
from typing import Self

import numpy as np
from scipy.special import betaln, logsumexp
from scipy.stats import beta

from ood.monitoring.processes import matters

FRACTIONS = np.geomspace(0.03, 0.9, 6)
_SHARE = 1 / 500
_OFFSET = 100.0
_MOST = 1e200


class Start(IntEnum):
    """When the bets are made.

    FIRST: all at the first item: the universal portfolio on a grid (Cover, Mathematical Finance
    1991; Orabona and Jun, IEEE TIT 2024); fastest if the risk is too high from the beginning.
    CONSTANT: at each item 1/500 of the cash left, as Shiryaev's prior for the time of a change
    (Theory of Probability and its Applications 1963); a change after n items costs n / 500.
    HEAVY: a share ln 100 / ln(100 + n) of the cash is left after n items, so that about
    ln 100 / (n ln^2 n) starts at item n; a change costs about ln n + 2 ln ln n, however late.
    """

    FIRST = 0
    CONSTANT = 1
    HEAVY = 2

    def cash(self, clock: np.ndarray) -> np.ndarray:
        """The share of the first capital that is not yet bet after `clock` items, any shape."""
        if self is Start.FIRST:
            return (clock == 0).astype(float)
        if self is Start.CONSTANT:
            return (1 - _SHARE) ** clock
        return np.log(_OFFSET) / np.log(_OFFSET + clock)


class StartMixture:
    """A mixture of wealths prod (1 + f largest payoff) over 6 fractions f and over start times.

    Each is a product of factors with mean at most 1 under the null, and so is their mixture, a
    sum that one step of the recursion bets <- (bets + stake) (1 + f largest payoff) keeps up to
    date: no window, and memory that does not grow. The clock counts items that matter; when a
    bet starts depends on that count before the item alone. As e-SR (Shin, Ramdas and Rinaldo,
    NEJSDS 2024) it sums over starts, but spends its capital once, so that false alarms have a
    probability over all time and not a rate.

    A bet that has grown 10^200-fold grows no further; to take gains off the table is allowed.

    Attributes:
        start: when bets are made.
        clock: (..., K) float64, how many items mattered.
        bets: (6, ..., K) float64, what each fraction holds, over all starts up to now.
        wealth: (..., K) float64, bets and cash; from 1.
    """

    def __init__(self, shape: tuple[int, ...], start: Start) -> None:
        self.start = start
        self.clock = np.zeros(shape)
        self.bets = np.zeros((len(FRACTIONS), *shape))
        self._settle()

    def _settle(self) -> None:
        self._cash = self.start.cash(self.clock)
        self._factors = np.empty_like(self.bets)
        self.wealth = self.bets.sum(axis=0) + self._cash

    @property
    def log_wealth(self) -> np.ndarray:
        """(..., K) float64, natural logarithm; minus infinity where all is lost."""
        with np.errstate(divide="ignore"):
            return np.log(self.wealth)

    def update(self, payoffs: np.ndarray, largest: np.ndarray | float) -> None:
        """See `Process.update`."""
        self.clock += matters(payoffs)
        cash = self.start.cash(self.clock)
        self.bets += (self._cash - cash) / len(FRACTIONS)
        self._cash = cash
        # The outer product, several times as fast as by broadcasting.
        products = (payoffs * largest).reshape(1, -1)
        np.dot(FRACTIONS[:, None], products, out=self._factors.reshape(len(FRACTIONS), -1))
        self._factors += 1
        self.bets *= self._factors
        np.add.reduce(self.bets, axis=0, out=self.wealth)
        if self.wealth.max(initial=0) > _MOST:
            np.minimum(self.bets, _MOST, out=self.bets)
            np.add.reduce(self.bets, axis=0, out=self.wealth)
        self.wealth += cash

    def restart(self, where: np.ndarray, clock: float) -> None:
        """Throw away all bets, and go on with the cash that is left after `clock` items.

        Args:
            where: (..., K) bool.
            clock: 0 for a fresh start.
        """
        self.bets[:, where] = 0
        self.clock[where] = clock
        self._settle()

    def state(self) -> dict[str, np.ndarray]:
        """See `Process.state`."""
        return {
            "start": np.array(self.start), "clock": self.clock.copy(), "bets": self.bets.copy()
        }  # fmt: skip

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> Self:
        """See `Process.restore`."""
        process = cls(state["clock"].shape, Start(int(state["start"])))
        process.clock, process.bets = state["clock"].copy(), state["bets"].copy()
        process._settle()
        return process


def start_posterior(
    start: Start, clock: np.ndarray, payoffs: np.ndarray, largest: np.ndarray
) -> np.ndarray:
    """Which starts the wealth of a mixture comes from: its date of the change.

    Shares of what starts at the last R items have grown to by now; those before are forgotten, so
    that it is approximate where they still hold much. It is no part of any bound.

    Args:
        start: of the mixture.
        clock: (K,) of the mixture, now.
        payoffs: (R, K) of the last R items that mattered, latest last; 0 before a restart.
        largest: (R, K) their largest bets.

    Returns:
        (R, K) float64, each column adding up to 1.
    """
    before = clock - np.arange(len(payoffs), 0, -1)[:, None]
    stakes = start.cash(np.maximum(before, 0)) - start.cash(np.maximum(before + 1, 0))
    products = payoffs * largest
    grown = np.full(products.shape, -np.inf)
    for fraction in FRACTIONS:
        # From each start to now.
        steps = np.log1p(fraction * products)[::-1].cumsum(axis=0)[::-1]
        np.logaddexp(grown, steps, out=grown)
    with np.errstate(divide="ignore"):
        grown += np.where(payoffs == 0, -np.inf, np.log(stakes))
    return np.exp(grown - logsumexp(grown, axis=0))


class BetaMixture:
    """The universal mixture for losses of 0 or 1, each labelled for sure, in closed form.

    A bet l stands for the alternative that the risk is q = limit + l limit (1 - limit); q is
    Beta(1/2, 1/2) above the limit. The wealth depends on two counts only, n items and k losses:
    ln B(k + 1/2, n - k + 1/2) + ln P(Beta(k + 1/2, n - k + 1/2) > limit) - the same for k = n = 0
    - k ln limit - (n - k) ln(1 - limit) (Robbins, AMS 1970, for mixtures of likelihood ratios).
    For the certificate give 1 - limit: its payoffs are those of losses swapped.

    Attributes:
        limit: of the risk, in (0, 1).
        losses: (..., K) float64, k.
        items: (..., K) float64, n.
    """

    def __init__(self, shape: tuple[int, ...], limit: float) -> None:
        self.limit = limit
        self.losses, self.items = np.zeros(shape), np.zeros(shape)

    @property
    def log_wealth(self) -> np.ndarray:
        """(..., K) float64, natural logarithm; minus infinity where it is too small to tell."""
        k, rest = self.losses, self.items - self.losses
        above = _log_mass_above(self.limit, k + 0.5, rest + 0.5)
        start = _log_mass_above(self.limit, np.array(0.5), np.array(0.5))
        return above - start - k * np.log(self.limit) - rest * np.log1p(-self.limit)

    def update(self, payoffs: np.ndarray, largest: np.ndarray | float) -> None:
        """See `Process.update`.

        Raises:
            ValueError: when payoffs are not 1 - limit, -limit or 0, or bets up to 1 / limit are
                not allowed.
        """
        lost, moved = payoffs > 0, payoffs != 0
        if not np.allclose(payoffs, np.where(moved, lost - self.limit, 0), rtol=0, atol=1e-12):
            raise ValueError(
                f"The closed form is for payoffs {1 - self.limit:g} and {-self.limit:g}, of items "
                "that are labelled for sure; use StartMixture for others."
            )
        if np.min(largest) < (1 - 1e-12) / self.limit:
            raise ValueError(
                f"The closed form bets up to {1 / self.limit:g}, but only {np.min(largest):g} is "
                "allowed; use StartMixture."
            )
        self.losses += lost
        self.items += moved

    def state(self) -> dict[str, np.ndarray]:
        """See `Process.state`."""
        return {
            "limit": np.array(self.limit),
            "losses": self.losses.copy(),
            "items": self.items.copy(),
        }

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> Self:
        """See `Process.restore`."""
        process = cls(state["losses"].shape, float(state["limit"]))
        process.losses, process.items = state["losses"].copy(), state["items"].copy()
        return process


def _log_mass_above(limit: float, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return betaln(a, b) + beta.logsf(limit, a, b)
