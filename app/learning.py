"""Classes that people named, learned beside those of a workspace; the workspace stays as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from app.new_class_replay import LEVEL
from app.workspace import Workspace
from ood.learned_class import FEWEST, LearnedClass

FOLDS = 5


@dataclass(frozen=True)
class NamedImages:
    """What a person says belongs together.

    Attributes:
        name: of the class.
        features: (n, D) of the workspace's network, n at least 2.
    """

    name: str
    features: np.ndarray


@dataclass(frozen=True)
class LearnedClasses:
    """K classes more than the C that a workspace's network knows.

    Attributes:
        names: K.
        learned: K, each beside all before it.
        head: (C, D + 1), the network's own last layer.
    """

    names: tuple[str, ...]
    learned: tuple[LearnedClass, ...]
    head: np.ndarray

    @classmethod
    def learn(cls, workspace: Workspace, named: Sequence[NamedImages]) -> Self:
        """Learn one class after the other; well under a second each.

        Raises:
            ValueError: when one has fewer than two images, or features that are not finite.
        """
        head = np.column_stack([workspace.bank.head.weight, workspace.bank.head.bias])
        features = np.asarray(workspace.bank.images.activations.features, np.float64)
        found = cls((), (), head)
        for images in named:
            learned = LearnedClass.learn(
                features, found.logits(features), images.features, found.logits(images.features)
            )
            found = cls((*found.names, images.name), (*found.learned, learned), head)
        return found

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(M, D) to (M, C + K) float64."""
        own = features @ self.head[:, :-1].T + self.head[:, -1]
        return np.column_stack([own, *(learned.logit(features) for learned in self.learned)])

    def p_values(self, features: np.ndarray) -> np.ndarray:
        """(M, D) to (M, K): of the hypotheses that each image is of each of these classes."""
        each = [learned.p_values(features) for learned in self.learned]
        return np.stack(each, axis=1) if each else np.empty((len(features), 0))

    def recognise(self, features: np.ndarray, level: float) -> np.ndarray:
        """Which class of these an image belongs to.

        One that the extended last layer answers with, and whose p-value is above the level: of
        images of that class at most a share `level` is not recognised for its p-value.

        Args:
            features: (M, D).
            level: as for the other decisions.

        Returns:
            (M,) place in `names`; -1 for none.
        """
        if not self.learned:
            return np.full(len(features), -1)
        answers = self.logits(features).argmax(axis=1) - len(self.head)
        p_values = self.p_values(features)
        chosen = np.maximum(answers, 0)
        likely = p_values[np.arange(len(features)), chosen] > level
        return np.where((answers >= 0) & likely, chosen, -1)

    def export(self) -> dict[str, np.ndarray]:
        """Weight (C + K, D) and bias (C + K,), float32, of the extended last layer."""
        rows = [*self.head, *(np.append(one.weight, one.bias) for one in self.learned)]
        theta = np.array(rows, np.float32)
        return {"weight": theta[:, :-1].copy(), "bias": theta[:, -1].copy()}


@dataclass(frozen=True)
class LearningReport:
    """What learning one more class does.

    Attributes:
        before: share of the calibration images classified as labelled, without it.
        after: the same with it.
        own: share of its images that are recognised, at 5%, when they are left out of learning, in
            five parts; NaN with fewer than four images.
        images: how many it was learned from.
    """

    before: float
    after: float
    own: float
    images: int


def report(
    workspace: Workspace, named: Sequence[NamedImages], learned: LearnedClasses
) -> LearningReport:
    """What the last of these classes does, all others being there before.

    Args:
        workspace: whose calibration images are asked about.
        named: at least one.
        learned: from exactly these.
    """
    images = workspace.calibration.images
    features, labels = np.asarray(images.activations.features), np.asarray(images.labels)
    without = LearnedClasses(learned.names[:-1], learned.learned[:-1], learned.head)
    before, after = (
        float((found.logits(features).argmax(axis=1) == labels).mean())
        for found in (without, learned)
    )
    last = named[-1]
    return LearningReport(before, after, _held_out(workspace, without, last), len(last.features))


def _held_out(workspace: Workspace, without: LearnedClasses, last: NamedImages) -> float:
    """Accuracy on the images of a class that it was not learned from, in parts."""
    count = len(last.features)
    if count < 2 * FEWEST:
        return float("nan")
    features = np.asarray(workspace.bank.images.activations.features, np.float64)
    logits = without.logits(features)
    own = without.logits(last.features)
    part = np.random.default_rng(0).permutation(count) % min(FOLDS, count)
    right = 0
    for fold in range(min(FOLDS, count)):
        kept, asked = part != fold, part == fold
        again = LearnedClass.learn(features, logits, last.features[kept], own[kept])
        found = again.logit(last.features[asked]) > own[asked].max(axis=1)
        right += int((found & (again.p_values(last.features[asked]) > LEVEL)).sum())
    return right / count
