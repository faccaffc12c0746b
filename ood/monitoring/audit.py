"""Which images an operator is asked about: all flagged ones and, by chance, some accepted ones."""

from dataclasses import dataclass

import numpy as np

from ood.monitoring.choosing import Restorable
from ood.monitoring.coins import coin

BLOCK = 1_000


@dataclass(frozen=True)
class Ask:
    """Whether a label is asked for.

    Attributes:
        asked: whether.
        probability: that this item was going to be asked about; one over it is its weight.
    """

    asked: bool
    probability: float


class Audits(Restorable):
    """How often accepted images are audited, within a budget of labels.

    The rate lies between floor and ceiling, evenly on a logarithmic scale between two kinds of
    evidence, each from 0 (none) to 1 (enough to say so):

        rate = sqrt(floor ceiling) (ceiling / floor)^((violation - certificate) / 2).

    While flagged images alone come near to spending the budget the rate falls towards the floor,
    and when the last 999 images have spent all of it, nobody is asked about the next image, flagged
    or not. All of that is known before the image is seen, so it breaks no bound: evidence is then
    about the images outside of such pauses, of which every one is weighed by its probability.

    Attributes:
        items: images so far.
        paused: of those, images for which there was no budget.
    """

    def __init__(self, floor: float, ceiling: float, budget: int, seed: int) -> None:
        """Before the first image.

        Args:
            floor: least audit rate, above 0; the largest allowed bets are in proportion to it.
            ceiling: largest audit rate, at most 1.
            budget: labels asked for in any 1,000 consecutive images, at most; 1,000 is no limit.
            seed: of the coins; a replay with the same one asks about the same images.

        Raises:
            ValueError: when they are out of these ranges.
        """
        if not 0 < floor <= ceiling <= 1 or not 0 < budget <= BLOCK:
            raise ValueError(
                f"Audit rates from {floor} to {ceiling} and {budget} labels per 1,000 images: give "
                "rates that ascend within (0, 1], and a budget between 1 and 1,000."
            )
        self.floor, self.ceiling, self.budget, self.seed = floor, ceiling, budget, seed
        self.items, self.paused = 0, 0
        self._asked = np.zeros(BLOCK, bool)
        self._flagged = np.zeros(BLOCK, bool)

    def rate(self, violation: float, certificate: float) -> float:
        """The probability that the next image is asked about if it is accepted; 0 in a pause.

        Args:
            violation: evidence that the deployed threshold is above its limit: log wealth over
                ln(1 / error); cut to [0, 1].
            certificate: the same, that it is within its limit.
        """
        if self._spent >= self.budget:
            return 0.0
        lean = float(np.clip(violation, 0, 1) - np.clip(certificate, 0, 1))
        wanted = (self.floor * self.ceiling) ** 0.5 * (self.ceiling / self.floor) ** (lean / 2)
        flagged = self._flagged.sum() / max(1, min(self.items, BLOCK))
        affordable = (self.budget / BLOCK - flagged) / max(1 - flagged, 1 / BLOCK)
        return float(min(max(affordable, self.floor), wanted))

    def ask(self, flagged: bool, rate: float) -> Ask:
        """Decide about the next image.

        Args:
            flagged: whether its score is above the deployed threshold.
            rate: what `rate` said before it.
        """
        probability = 1.0 if flagged and rate > 0 else rate
        asked = coin(self.seed, self.items) < probability
        slot = self.items % BLOCK
        self._asked[slot], self._flagged[slot] = asked, flagged
        self.items += 1
        self.paused += rate == 0
        return Ask(asked, probability)

    @property
    def _spent(self) -> int:
        """Labels asked for in the last 999 images."""
        latest = int(self._asked[self.items % BLOCK]) if self.items >= BLOCK else 0
        return int(self._asked.sum()) - latest
