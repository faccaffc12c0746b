"""Wealth spread over bets with windows and without, and over start times: nothing to tune."""

from typing import Self

import numpy as np

from ood.monitoring.bets import AGrapa, Betting, FixedBet
from ood.monitoring.windows import Window

_WINDOWS = (50, 150, 450)
_SHARES = (0.06, 0.2)
_MOST = 1e200


class WindowPortfolio:
    """A mixture of five bettors and of all times at which they could have begun; a `Process`.

    Three bet by aGRAPA on the last 50, 150 and 450 items, two always 6% and 20% of the largest
    bet. After n items a share 1 / ln(e + n) of the first capital is still cash; what leaves it at
    an item is dealt to the five in equal parts. Wealth is then a mixture, with weights fixed in
    advance, of wealths that nobody expects to grow (Shiryaev, Theory of Probability and its
    Applications 1963, for the start times; Cover, Mathematical Finance 1991, for the mixture), so
    it is one. A bettor that begins when the risk changes holds about 1 / (5 n ln^2 n).

    Memory is 650 numbers for each stream and threshold. Wealth is not monotone in the threshold,
    as that of constant bets is. A bettor that holds 10^200 wins no more.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Of (..., K) streams and thresholds."""
        self._bettors: tuple[Betting, ...] = (
            *(AGrapa(Window(shape, length)) for length in _WINDOWS),
            *(FixedBet(shape, share) for share in _SHARES),
        )
        self._held = np.zeros((len(self._bettors), *shape))
        self._items = np.zeros(shape, np.int64)

    @property
    def log_wealth(self) -> np.ndarray:
        """(..., K) natural logarithm."""
        return np.log(self._held.sum(axis=0) + self._cash)

    @property
    def _cash(self) -> np.ndarray:
        return 1 / np.log(np.e + self._items)

    def update(self, payoffs: np.ndarray, largest: np.ndarray | float) -> None:
        """Bet on one item and learn from it; arguments as in `Process.update`."""
        before = self._cash
        self._items += payoffs != 0
        self._held += (before - self._cash) / len(self._bettors)
        for held, bettor in zip(self._held, self._bettors, strict=True):
            bets = bettor.bets(largest)
            held *= 1 + bets * payoffs
            bettor.learn(payoffs, bets)
        np.minimum(self._held, _MOST, out=self._held)

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `restore` goes on."""
        inner = {
            f"{number}.{name}": value
            for number, bettor in enumerate(self._bettors)
            for name, value in bettor.state().items()
        }
        return {"held": self._held, "items": self._items} | inner

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> Self:
        """The process that had this state."""
        new = cls(state["items"].shape)
        new._held, new._items = state["held"].copy(), state["items"].copy()
        new._bettors = tuple(
            type(bettor).restore(
                {name[2:]: value for name, value in state.items() if name.startswith(f"{number}.")}
            )
            for number, bettor in enumerate(new._bettors)
        )
        return new
