"""Which detector decides, chosen without looking at anybody's outliers."""

from collections.abc import Mapping

import numpy as np

from ood.combination import COMBINATIONS
from ood.gradient import ODIN
from ood.metrics import evaluate

MARGIN = 0.01


def mean_auroc(
    normal: Mapping[str, np.ndarray], outliers: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Each detector's AUROC, averaged over kinds of outliers.

    Args:
        normal: detector to (n,) scores of held-out images.
        outliers: kind to detector to scores.
    """
    return {
        name: float(np.mean([evaluate(scores, kind[name]).auroc for kind in outliers.values()]))
        for name, scores in normal.items()
    }


def choose_default(auroc: Mapping[str, float]) -> str:
    """The best combination, unless a single detector beats it by more than 0.01.

    Made-up outliers say little about real ones; a combination loses least when they mislead.
    ODIN, which makes every decision five passes dearer, is not chosen unasked.
    """
    joined = max(COMBINATIONS, key=lambda name: auroc[name])
    singles = [name for name in auroc if name not in {*COMBINATIONS, ODIN.info.name}]
    single = max(singles, key=lambda name: auroc[name])
    return single if auroc[single] > auroc[joined] + MARGIN else joined
