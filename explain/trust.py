"""How far influences on the refitted head can be trusted: prediction against actual refits."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import spearmanr

from explain.head import extend
from explain.influence import HeadInfluence
from explain.refits import HeadRefits

LEFT_OUT = 30
_SEED = 0


@dataclass(frozen=True)
class Fidelity:
    """How predicted effects agree with actual ones, over all pairs.

    Attributes:
        pearson: correlation.
        spearman: rank correlation.
        slope: actual effects are this many times the predicted ones, by least squares.
    """

    pearson: float
    spearman: float
    slope: float

    @classmethod
    def of(cls, predicted: np.ndarray, actual: np.ndarray) -> Self:
        """Of two arrays of one shape."""
        x, y = predicted.ravel().astype(np.float64), actual.ravel()
        return cls(
            pearson=float(np.corrcoef(x, y)[0, 1]),
            spearman=float(spearmanr(x, y).statistic),
            slope=float(x @ y / (x @ x)),
        )


@dataclass(frozen=True)
class LeaveOneOutCheck:
    """Change of a margin when one of L training images is left out, for Q images in question.

    Attributes:
        rows: (L,) of the Bank.
        influence: (L, Q) as influence predicts it, by which images are ranked.
        newton: (L, Q) by a Newton step without the image, the size that is shown.
        actual: (L, Q) by refitting without it.
    """

    rows: np.ndarray
    influence: np.ndarray
    newton: np.ndarray
    actual: np.ndarray


def leave_one_out_check(
    influence: HeadInfluence, refits: HeadRefits, features: np.ndarray, count: int = LEFT_OUT
) -> LeaveOneOutCheck:
    """Leave out single training images, in truth: half of them at random, half the strongest.

    Args:
        influence: of the training images.
        refits: of the same head.
        features: (Q, D) of images to see the effect on, best held out from training.
        count: how many training images to leave out.
    """
    size = len(influence.self_influence)
    strongest = np.argsort(-influence.self_influence, kind="stable")[: count // 2]
    random = np.random.default_rng(_SEED).choice(size, min(count - len(strongest), size), False)
    rows = np.unique(np.concatenate([strongest, random]))
    extended = extend(features)
    logits = extended @ influence.theta.T
    against, target = np.argsort(logits, axis=1)[:, -2:].T
    asked = np.arange(len(features))
    margins = logits[asked, target] - logits[asked, against]
    queries = list(zip(features, target.tolist(), against.tolist(), strict=True))
    predicted = np.stack([influence.on_margin(*query)[rows] for query in queries], axis=1)
    newton = np.stack([influence.removal_effect(rows, *query) for query in queries], axis=1)
    actual = np.empty(predicted.shape)
    for number, row in enumerate(rows):
        moved = extended @ refits.without([row]).theta.T
        actual[number] = moved[asked, target] - moved[asked, against] - margins
    return LeaveOneOutCheck(rows, predicted, newton, actual)
