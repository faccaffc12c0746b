"""Which decisions hang on a single training image."""

from dataclasses import dataclass

import numpy as np

from explain.head import RefitDidNotConverge
from explain.influence import HeadInfluence
from explain.refits import HeadRefits

_STRONGEST = 3
_WITHIN = 4.0
_TRIED_FROM = 0.5


@dataclass(frozen=True)
class SingleFlips:
    """Of m images in question, those that one training image decides.

    Attributes:
        asked: (m,) int64, their rows wherever they come from.
        by: (m,) int64, row of the Bank without which the image is classified otherwise; -1 where
            none was found.
        after: (m,) int64, the class that it then gets; its own class where none was found.
    """

    asked: np.ndarray
    by: np.ndarray
    after: np.ndarray


def single_flips(
    influence: HeadInfluence, refits: HeadRefits, features: np.ndarray, asked: np.ndarray
) -> SingleFlips:
    """Leave-one-out unfairness of the last layer (Black and Fredrikson, FAccT 2021, definition 1).

    Each one reported has been refitted and does flip. Put to that proof is the training image of
    the largest Newton effect, of the three with the most influence, for every class whose margin
    that effect reaches at least half of. So the share of images found is a lower bound, close to
    exact where Newton's step is.

    Args:
        influence: of the training images.
        refits: of the same head.
        features: (m, D) of the images in question, best held out from training.
        asked: (m,) rows by which the caller knows them.
    """
    logits = refits.head.logits(features)
    before = logits.argmax(axis=1)
    by, after = np.full(len(features), -1), before.copy()
    for number, (x, own) in enumerate(zip(logits, features, strict=True)):
        target = int(before[number])
        for against in np.argsort(-x, kind="stable")[1:]:
            found = _flip(influence, refits, own, target, int(against), x[target] - x[against])
            if found is not None:
                by[number], after[number] = found
                break
    return SingleFlips(np.asarray(asked), by, after)


def _flip(
    influence: HeadInfluence, refits: HeadRefits, features: np.ndarray, target: int,
    against: int, margin: float,
) -> tuple[int, int] | None:  # fmt: skip
    """The training image that decides between two classes, and the class without it."""
    if _WITHIN * influence.largest_effect(features, target, against) < margin:
        return None
    rows = influence.strongest(features, target, against, _STRONGEST).helpful
    if not len(rows):
        return None
    effects = influence.removal_effect(rows, features, target, against)
    if effects.min() > -_TRIED_FROM * margin:
        return None
    row = int(rows[effects.argmin()])
    try:
        head = refits.without([row])
    except RefitDidNotConverge:
        return None  # not proved
    after = int((head.theta @ np.append(features, 1)).argmax())
    return None if after == target else (row, after)
