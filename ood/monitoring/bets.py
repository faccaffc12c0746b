"""Evidence that payoffs are positive on average: one bet an item, sized by what came before it.

Each class here is a `Process`. Wealth starts at 1 and is multiplied by 1 + bet * payoff; a bet
looks only at earlier items and is smaller than the largest allowed one, so wealth stays positive
and, while payoffs are not positive on average given the past, nobody can expect it to grow:
P(it ever reaches 1 / a) <= a (Ville, 1939), however badly the bet is chosen. Items that do not
matter have payoff 0 and change nothing.
"""

from abc import ABC, abstractmethod
from typing import Self

import numpy as np

from ood.monitoring.windows import Adwin, Window

_WINDOWS: tuple[type[Window] | type[Adwin], ...] = (Window, Adwin)
_HALF = 0.5


class Betting(ABC):
    """Wealth of one bet an item.

    Attributes:
        log_wealth: (..., K) natural logarithm, for any number of streams and K thresholds.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Of (..., K) streams and thresholds."""
        self.log_wealth = np.zeros(shape)

    def update(self, payoffs: np.ndarray, largest: np.ndarray | float) -> None:
        """Bet on one item and learn from it.

        Args:
            payoffs: (..., K), at least -1 / largest; 0 where the item does not matter.
            largest: (..., K) or one, supremum of allowed bets, known before the item.
        """
        bets = self.bets(largest)
        self.log_wealth += np.log1p(bets * payoffs)
        self.learn(payoffs, bets)

    @abstractmethod
    def bets(self, largest: np.ndarray | float) -> np.ndarray:
        """(..., K) for the next item, from 0 to below its largest."""

    @abstractmethod
    def learn(self, payoffs: np.ndarray, bets: np.ndarray) -> None:
        """Remember an item and what was bet on it."""

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `restore` goes on."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> Self:
        """The process that had this state."""
        new = cls.__new__(cls)
        vars(new).update({name: value.copy() for name, value in state.items()})
        return new


class FixedBet(Betting):
    """Always the same share of the largest bet."""

    def __init__(self, shape: tuple[int, ...], share: float) -> None:
        """Of (..., K) streams and thresholds; a share from 0 to below 1."""
        super().__init__(shape)
        self._share = share

    def bets(self, largest: np.ndarray | float) -> np.ndarray:
        """(..., K) for the next item."""
        return np.broadcast_to(self._share * np.asarray(largest), self.log_wealth.shape)

    def learn(self, payoffs: np.ndarray, bets: np.ndarray) -> None:
        """Remember an item and what was bet on it."""


class OnlineNewtonStep(Betting):
    """Bets that follow the gradient of the logarithm of wealth.

    ONS (Cutkosky and Orabona, COLT 2018, algorithm 1; Shekhar and Ramdas, IEEE Transactions on
    Information Theory 2023): with z = -g / (1 + l g) after payoff g, the next bet is
    l - 2 / (2 - ln 3) z / (1 + sum z^2), cut to 0 and half of the largest.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Of (..., K) streams and thresholds."""
        super().__init__(shape)
        self._next = np.zeros(shape)
        self._curvature = np.ones(shape)

    def bets(self, largest: np.ndarray | float) -> np.ndarray:
        """(..., K) for the next item."""
        return np.minimum(self._next, _HALF * np.asarray(largest))

    def learn(self, payoffs: np.ndarray, bets: np.ndarray) -> None:
        """Remember an item and what was bet on it."""
        gradient = -payoffs / (1 + bets * payoffs)
        self._curvature += np.square(gradient)
        step = 2 / (2 - np.log(3)) * gradient / self._curvature
        self._next = np.where(payoffs != 0, np.maximum(bets - step, 0), self._next)


class Kelly(Betting):
    """The best bet if payoffs take two values, with the KT estimate of how often it is a gain.

    With gains of size G at probability q and losses of size L, q / L - (1 - q) / G grows wealth
    fastest (Kelly, Bell System Technical Journal 1956). L is the largest possible loss, G the mean
    of the gains so far, q = (gains + 1/2) / (items + 1) (Krichevsky and Trofimov, IEEE
    Transactions on Information Theory 1981). For losses of 0 or 1 that is
    (q - limit) / (limit (1 - limit)). Nothing is bet before the first gain.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Of (..., K) streams and thresholds."""
        super().__init__(shape)
        self._items = np.zeros(shape, np.int64)
        self._gains = np.zeros(shape, np.int64)
        self._gained = np.zeros(shape)

    def bets(self, largest: np.ndarray | float) -> np.ndarray:
        """(..., K) for the next item."""
        share = (self._gains + 0.5) / (self._items + 1)
        mean = self._gained / np.maximum(self._gains, 1)
        odds = np.divide(1 - share, mean, out=np.full_like(mean, np.inf), where=mean > 0)
        return np.maximum(share * np.asarray(largest) - odds, 0)

    def learn(self, payoffs: np.ndarray, bets: np.ndarray) -> None:
        """Remember an item and what was bet on it."""
        self._items += payoffs != 0
        self._gains += payoffs > 0
        self._gained += np.maximum(payoffs, 0)


class _WindowBetting(Betting):
    """Bets sized by the moments of the payoffs in a window."""

    def __init__(self, window: Window | Adwin) -> None:
        """Of the streams and thresholds of an empty window."""
        super().__init__(window.items.shape)
        self.window = window

    def learn(self, payoffs: np.ndarray, bets: np.ndarray) -> None:
        """Remember an item and what was bet on it."""
        self.window.add(payoffs)

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `restore` goes on."""
        own = {name: value for name, value in vars(self).items() if name != "window"}
        kind = {"window": np.array(_WINDOWS.index(type(self.window)))}
        inner = {f"window.{name}": value for name, value in self.window.state().items()}
        return {name: np.asarray(value) for name, value in own.items()} | kind | inner

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> Self:
        """The process that had this state."""
        parts = {name: value for name, value in state.items() if not name.startswith("window")}
        new = super().restore(parts)
        inner = {name[7:]: value for name, value in state.items() if name.startswith("window.")}
        new.window = _WINDOWS[int(state["window"])].restore(inner)
        return new


class AGrapa(_WindowBetting):
    """Mean over mean square of the payoffs, cut to 0 and half of the largest bet.

    aGRAPA (Waudby-Smith and Ramdas, JRSS B 2024, appendix B). With a window of all items and a
    burn-in of 100 it is the bet of Timans, Verma, Nalisnick and Naesseth, UAI 2025.
    """

    def __init__(self, window: Window | Adwin, burn_in: int = 0) -> None:
        """Of an empty window; nothing is bet on the first `burn_in` items that matter."""
        super().__init__(window)
        self._burn_in = burn_in

    def bets(self, largest: np.ndarray | float) -> np.ndarray:
        """(..., K) for the next item."""
        mean, square = self.window.moments
        best = np.divide(mean, square, out=np.zeros_like(mean), where=square > 0)
        best[self.window.items < self._burn_in] = 0
        return np.clip(best, 0, _HALF * np.asarray(largest))


class Lbow(_WindowBetting):
    """The bet that is best for a lower bound of the wealth.

    LBOW (Waudby-Smith and Ramdas, JRSS B 2024, appendix B): mean over mean square plus the mean
    times the largest loss, of the payoffs of a window. It never needs to be cut from above.
    """

    def bets(self, largest: np.ndarray | float) -> np.ndarray:
        """(..., K) for the next item."""
        mean, square = self.window.moments
        gain = np.maximum(mean, 0)
        denominator = gain / np.asarray(largest) + np.maximum(square, np.square(mean))
        return np.divide(gain, denominator, out=np.zeros_like(gain), where=gain > 0)


class EmpiricalBernstein(Betting):
    """Evidence by a predictably mixed empirical Bernstein bound.

    Waudby-Smith and Ramdas, JRSS B 2024, section 3.2, as an e-process: wealth is multiplied by
    exp(f g / u - ((g - mean) / u)^2 (-ln(1 - f) - f)), with f = sqrt(2 ln(1 / error) / (v t
    ln(1 + t))) cut to 1/2, v the mean of 1/4 and the squared deviations so far, and a unit
    u = max(1, 1 / largest + max(mean, 0)), so that deviations from the mean of earlier payoffs
    are at least -1. Fan, Grama and Liu (EJP 2015) bound the exponential of such a deviation, so
    wealth never expects to grow under the hypothesis. With all labels the unit is 1, as published
    for losses from 0 to 1. Weaker than any bet.
    """

    def __init__(self, shape: tuple[int, ...], error: float) -> None:
        """Of (..., K) streams and thresholds; the error that bets are sized for, in (0, 1)."""
        super().__init__(shape)
        self._error = error
        self._items = np.zeros(shape, np.int64)
        self._total = np.zeros(shape)
        self._deviations = np.zeros(shape)

    @property
    def _mean(self) -> np.ndarray:
        return self._total / np.maximum(self._items, 1)

    def _unit(self, largest: np.ndarray | float) -> np.ndarray:
        return np.maximum(1 / np.asarray(largest) + np.maximum(self._mean, 0), 1)

    def bets(self, largest: np.ndarray | float) -> np.ndarray:
        """(..., K) for the next item, as a share of the unit: f / u."""
        t = self._items + 1
        variance = (0.25 + self._deviations) / t
        best = np.sqrt(2 * np.log(1 / self._error) / (variance * t * np.log1p(t)))
        return np.minimum(best, _HALF) / self._unit(largest)

    def update(self, payoffs: np.ndarray, largest: np.ndarray | float) -> None:
        """Bet on one item and learn from it; arguments as in `Betting.update`."""
        bets, unit = self.bets(largest), self._unit(largest)
        share = bets * unit
        deviation = np.where(payoffs != 0, np.square((payoffs - self._mean) / unit), 0)
        self.log_wealth += bets * payoffs + deviation * (np.log1p(-share) + share)
        self._deviations += deviation
        self.learn(payoffs, bets)

    def learn(self, payoffs: np.ndarray, bets: np.ndarray) -> None:
        """Remember an item and what was bet on it."""
        self._items += payoffs != 0
        self._total += payoffs
