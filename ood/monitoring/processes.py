"""What every betting strategy offers: wealth that nobody expects to grow under the null."""

from typing import Protocol, Self

import numpy as np


class Process(Protocol):
    """Wealth, from 1, of someone who bets on payoffs: W becomes W (1 + bet payoff) at each item.

    A bet depends on earlier items only and lies in [0, largest). Then, while payoffs have a mean
    of at most 0 given the past, P(wealth ever reaches a) <= 1 / a (Ville, 1939).

    Shapes: any leading axes (streams, of which none knows of the others), then K thresholds.
    """

    @property
    def log_wealth(self) -> np.ndarray:
        """(..., K) float64, natural logarithm."""
        ...

    def update(self, payoffs: np.ndarray, largest: np.ndarray | float) -> None:
        """Bet on one more item of each stream.

        Args:
            payoffs: (..., K); 0 all over a stream says that its item does not matter, and leaves
                everything of that stream as it was.
            largest: (..., K) or number, the supremum of the bets allowed on this item, known
                before it: 1 + largest payoff >= 0 whatever the item could have been.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as arrays that may be stored."""
        ...

    @classmethod
    def restore(cls, state: dict[str, np.ndarray]) -> Self:
        """A process that goes on to the same numbers, bit for bit."""
        ...


def matters(payoffs: np.ndarray) -> np.ndarray:
    """(..., K) payoffs to (..., 1) bool: which streams' items count."""
    return (payoffs != 0).any(axis=-1, keepdims=True)
