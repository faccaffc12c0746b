"""What every rule offers that chooses a threshold from the labels of an operator."""

from typing import Protocol

import numpy as np


class Chooser(Protocol):
    """A threshold that follows labels; it promises nothing, see the tests for what it allows.

    Shapes: any leading axes (streams, of which none knows of the others), often none.
    """

    @property
    def threshold(self) -> np.ndarray:
        """(...) for the next item, which is flagged if its score is above."""
        ...

    def observe(self, score: np.ndarray, unknown: np.ndarray, weight: np.ndarray) -> None:
        """Learn from one more item of each stream.

        Args:
            score: (...) larger = more outlying.
            unknown: (...) bool labels; where the weight is 0 they do not matter.
            weight: (...) one over the probability of being labelled, 0 for what is not labelled.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Everything, as arrays that may be stored."""
        ...

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a stored state to the same numbers, bit for bit."""
        ...


class Restorable:
    """Something that is nothing but its attributes: arrays and numbers."""

    def state(self) -> dict[str, np.ndarray]:
        """A copy of everything, as arrays that may be stored."""
        return {name: np.array(value, order="C") for name, value in vars(self).items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Take over a stored state.

        Raises:
            ValueError: when it is that of something else.
        """
        if state.keys() != vars(self).keys():
            raise ValueError(
                f"The state has {sorted(state)}, but {type(self).__name__} needs "
                f"{sorted(vars(self))}."
            )
        for name, value in state.items():
            old = getattr(self, name)
            vars(self)[name] = value.copy() if isinstance(old, np.ndarray) else value.item()
