"""All detectors of a workspace, run over what one pass left behind."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from models.activations import Activations
from models.bank import Bank
from models.classifier import Classifier
from ood.combination import COMBINATIONS, MEMBERS, Combiner
from ood.detectors import DETECTORS, SPECIAL, Detector, DetectorInfo
from ood.gradient import ODIN
from ood.store import load_fitted

COMBINER_FILE = "combiner.safetensors"


@dataclass(frozen=True)
class Panel:
    """Fitted detectors, and what joins some of them.

    Attributes:
        detectors: by name.
        combiner: joins four of them.
        odin: needs passes of its own; None where it was not asked for.
    """

    detectors: dict[str, Detector]
    combiner: Combiner
    odin: ODIN | None = None

    @classmethod
    def load(cls, folder: Path, names: Collection[str]) -> Self:
        """Detectors by name, each in a file of its own, and the combiner."""
        kinds, odin = DETECTORS | SPECIAL, ODIN.info.name
        return cls(
            detectors={
                n: load_fitted(kinds[n], folder / f"{n}.safetensors") for n in names if n != odin
            },
            combiner=load_fitted(Combiner, folder / COMBINER_FILE),
            odin=load_fitted(ODIN, folder / f"{odin}.safetensors") if odin in names else None,
        )

    @property
    def infos(self) -> dict[str, DetectorInfo]:
        """What each says of itself, by name, the combinations first."""
        infos = {name: combination.info for name, combination in COMBINATIONS.items()}
        infos |= {name: detector.info for name, detector in self.detectors.items()}
        return infos if self.odin is None else infos | {self.odin.info.name: self.odin.info}

    def score(self, activations: Activations) -> dict[str, np.ndarray]:
        """Name to (N,) float32 scores, in the order of `infos`; larger means more outlying.

        All but ODIN's, which the pass that left the activations does not give.
        """
        scores = {name: d.score(activations) for name, d in self.detectors.items()}
        return self.combiner.score(scores) | scores

    def score_gradients(self, classifier: Classifier, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """ODIN's scores of (N, channels, S, S) uint8; nothing where it was not asked for."""
        return {} if self.odin is None else {ODIN.info.name: self.odin.score(classifier, pixels)}

    def microseconds(self, bank: Bank, activations: Activations) -> dict[str, float]:
        """What each but ODIN costs an image after the pass, measured on these N images.

        The search of the Bank counts for who reads it; a combination costs what its members do.
        """
        scores: dict[str, np.ndarray] = {}

        def timed(work: Callable[[], object]) -> float:
            start = time.perf_counter()
            work()
            return (time.perf_counter() - start) / len(activations) * 1e6

        search = timed(lambda: bank.locate(activations))
        located = bank.locate(activations)
        costs = {}
        for name, detector in self.detectors.items():

            def score(name: str = name, detector: Detector = detector) -> None:
                scores[name] = detector.score(located)

            costs[name] = timed(score)
            if "neighbours" in detector.info.consumes:
                costs[name] += search
        joined = timed(lambda: self.combiner.score(scores)) + sum(costs[m] for m in MEMBERS)
        return dict.fromkeys(COMBINATIONS, joined) | costs
