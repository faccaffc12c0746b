"""Detectors compared: how well each separates known from unknown images, and at what cost."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from app.workspace import Workspace
from ood.combination import COMBINATIONS, MEMBERS
from ood.metrics import DetectionMetrics, bootstrap, evaluate

LEAK_MARGIN = 0.05
_TIMED_IMAGES = 500
_WARM_UP_IMAGES = 16

Scores = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LeakCheck:
    """Whether a detector finds training images rather than the known classes.

    Attributes:
        auroc: P(score of a training image > score of a calibration image). Below one half the
            detector remembers its training images; above, the two are different images.
        low: lower end of its 95% interval.
        high: upper end.
    """

    auroc: float
    low: float
    high: float

    @property
    def near_half(self) -> bool:
        """Whether the interval reaches to within 0.05 of one half."""
        return self.low <= 0.5 + LEAK_MARGIN and self.high >= 0.5 - LEAK_MARGIN


@dataclass(frozen=True)
class Contender:
    """What can be said of a detector before any outlier is seen.

    Attributes:
        title: name for people.
        decides: whether it is the workspace's default.
        fit_s: seconds that fitting took; of a combination, its members' together, without which it
            cannot be had.
        us_per_image: microseconds an image after the classifier's pass; ODIN's are for its own.
        leak: see `LeakCheck`.
    """

    title: str
    decides: bool
    fit_s: float
    us_per_image: float
    leak: LeakCheck


@dataclass(frozen=True)
class Comparison:
    """One detector on one set of outliers.

    Attributes:
        detector: its name.
        contender: what does not depend on the set.
        ood: name of the set.
        known: number of calibration images.
        unknown: number of images in the set.
        metrics: measured.
        low: lower ends of their 95% intervals.
        high: upper ends.
    """

    detector: str
    contender: Contender
    ood: str
    known: int
    unknown: int
    metrics: DetectionMetrics
    low: DetectionMetrics
    high: DetectionMetrics


def contenders(workspace: Workspace) -> dict[str, Contender]:
    """Every detector by name, its time measured now on calibration images; takes seconds."""
    manifest, panel = workspace.manifest, workspace.panel
    normal = workspace.calibration.activations
    # The first call of a detector loads libraries and fills caches: not its cost.
    panel.microseconds(workspace.bank, normal.take(np.arange(min(len(normal), _WARM_UP_IMAGES))))
    timed = normal.take(np.arange(min(len(normal), _TIMED_IMAGES)))
    costs = panel.microseconds(workspace.bank, timed) | _gradient_costs(workspace)
    fit_s = manifest.fit_seconds
    joined = dict.fromkeys(COMBINATIONS, sum(fit_s[name] for name in MEMBERS))
    return {
        name: Contender(
            title=info.title,
            decides=name == manifest.detector,
            fit_s=(joined | fit_s)[name],
            us_per_image=costs[name],
            leak=leak_check(workspace.calibration_scores[name], workspace.training_scores[name]),
        )
        for name, info in panel.infos.items()
    }


def _gradient_costs(workspace: Workspace) -> dict[str, float]:
    """What ODIN costs an image, on noise: the time does not depend on what is in the picture."""
    shape = (_WARM_UP_IMAGES, *workspace.classifier.preprocessing.shape)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    start = time.perf_counter()
    scores = workspace.panel.score_gradients(workspace.classifier, noise)
    return dict.fromkeys(scores, (time.perf_counter() - start) / len(noise) * 1e6)


def leak_check(calibration: np.ndarray, training: np.ndarray) -> LeakCheck:
    """(n,) scores of held-out and (m,) of training images, which should look alike."""
    low, high = bootstrap(calibration, training)
    return LeakCheck(evaluate(calibration, training).auroc, low.auroc, high.auroc)


def compare(
    among: Mapping[str, Contender], known: Scores, unknown: Scores, ood: str
) -> list[Comparison]:
    """Every detector on one set, the best AUROC first.

    Args:
        among: the detectors.
        known: detector to (n,) scores of calibration images.
        unknown: detector to (m,) scores of the set.
        ood: name of the set.
    """
    compared = []
    for name, contender in among.items():
        low, high = bootstrap(known[name], unknown[name])
        compared.append(
            Comparison(
                detector=name, contender=contender, ood=ood,
                known=len(known[name]), unknown=len(unknown[name]),
                metrics=evaluate(known[name], unknown[name]), low=low, high=high,
            )
        )  # fmt: skip
    return sorted(compared, key=lambda c: -c.metrics.auroc)


@dataclass(frozen=True)
class Agreement:
    """How alike D detectors rank the same images.

    Attributes:
        names: D of them, those that agree side by side.
        correlation: (D, D) Spearman's rank correlation; NaN beside a detector that scores all
            images alike.
    """

    names: tuple[str, ...]
    correlation: np.ndarray


def agreement(scores: Scores) -> Agreement:
    """Rank agreement over N images of one kind (Spearman, 1904).

    Known and unknown images together would say little: any two detectors that separate them agree.

    Args:
        scores: detector to (N,) scores of the same images.
    """
    names = np.array(list(scores))
    ranks = rankdata(np.stack([scores[name] for name in names]), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.atleast_2d(np.corrcoef(ranks))
    order = _alike_together(correlation)
    return Agreement(tuple(names[order].tolist()), correlation[np.ix_(order, order)])


def _alike_together(correlation: np.ndarray) -> np.ndarray:
    if len(correlation) < 3:
        return np.arange(len(correlation))
    distance = 1 - np.nan_to_num(correlation)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    order: np.ndarray = leaves_list(tree)
    return order
