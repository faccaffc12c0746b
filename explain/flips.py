"""How many training images would have to go for a decision to flip, proved by refitting."""

from dataclasses import dataclass

import numpy as np

from explain.head import RefittedHead
from explain.influence import HeadInfluence
from explain.refits import HeadRefits

LARGEST_FLIP = 2_000


@dataclass(frozen=True)
class FlipSet:
    """Training images without which one decision is another; no fewer of this order do it.

    Attributes:
        rows: (k,) of the Bank, those that support the decision most first.
        predicted: how many influence alone said it would take.
        before: the class that the refitted head gives with them.
        after: the class that it gives without them.
        head: refitted without them.
    """

    rows: np.ndarray
    predicted: int
    before: int
    after: int
    head: RefittedHead


def flip_set(
    influence: HeadInfluence, refits: HeadRefits, features: np.ndarray,
    largest: int = LARGEST_FLIP,
) -> FlipSet | None:  # fmt: skip
    """The smallest number of the most supporting training images whose absence flips a decision.

    Influence orders them; refits decide. The smallest size is searched by bisection, as if every
    larger set flipped too; the set returned has been refitted and does flip.

    Args:
        influence: of the training images.
        refits: of the same head.
        features: (D,) of the image in question.
        largest: the most images to leave out.

    Returns:
        None when leaving out that many does not flip it.
    """
    logits = influence.theta @ np.append(features, 1)
    against, before = (int(c) for c in np.argsort(logits)[-2:])
    effect = influence.on_margin(features, before, against)
    order = np.argsort(effect, kind="stable")
    order = order[effect[order] < 0][:largest]
    if not len(order):
        return None
    margin = logits[before] - logits[against]
    crossed = np.flatnonzero(margin + np.cumsum(effect[order], dtype=np.float64) < 0)
    predicted = int(crossed[0]) + 1 if len(crossed) else len(order) + 1

    def refitted(count: int) -> tuple[RefittedHead, int]:
        head = refits.without(order[:count])
        return head, int((head.theta @ np.append(features, 1)).argmax())

    high = min(predicted, len(order))
    while (found := refitted(high))[1] == before:
        if high == len(order):
            return None
        high = min(2 * high, len(order))
    low = 0  # with nobody left out it does not flip
    while high - low > 1:
        middle = (low + high) // 2
        tried = refitted(middle)
        if tried[1] == before:
            low = middle
        else:
            high, found = middle, tried
    return FlipSet(order[:high], predicted, before, found[1], found[0])
