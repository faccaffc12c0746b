"""How far influences on the refitted head can be trusted: prediction against actual refits."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from explain.head import extend
from explain.influence import HeadInfluence
from explain.refits import HeadRefits

LEFT_OUT = 30
_SEED = 0


@dataclass(frozen=True)
class LeaveOneOutCheck:
    """Predicted and actual change of a margin when one training image is left out.

    Attributes:
        predicted: (L, Q) for L training images and Q images in question.
        actual: (L, Q) by refitting without that training image.
    """

    predicted: np.ndarray
    actual: np.ndarray

    @property
    def pearson(self) -> float:
        """Correlation over all pairs."""
        return float(np.corrcoef(self.predicted.ravel(), self.actual.ravel())[0, 1])

    @property
    def spearman(self) -> float:
        """Rank correlation over all pairs."""
        return float(spearmanr(self.predicted.ravel(), self.actual.ravel()).statistic)

    @property
    def slope(self) -> float:
        """Actual effects are this many times the predicted ones, by least squares."""
        predicted = self.predicted.ravel()
        return float(predicted @ self.actual.ravel() / (predicted @ predicted))


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
    predicted = np.stack(
        [
            influence.on_margin(*query)[rows]
            for query in zip(features, target, against, strict=True)
        ],
        axis=1,
    )
    actual = np.empty(predicted.shape)
    for number, row in enumerate(rows):
        moved = extended @ refits.without([row]).theta.T
        actual[number] = moved[asked, target] - moved[asked, against] - margins
    return LeaveOneOutCheck(predicted, actual)
