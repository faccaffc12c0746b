"""A classifier with everything that was prepared around it, opened once and shared."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file

from app.manifest import Manifest, WorkspaceError
from explain.attribution import integrated_gradients
from explain.influence import HeadInfluence, Influences
from explain.map import place
from models.activations import Activations, join_activations
from models.bank import Bank, CalibrationSet
from models.classifier import Classifier
from models.loading import load_network, read_state_dict
from models.observed import ObservedSet
from ood.conformal import ConformalCalibration
from ood.decision import Decision, decide
from ood.detectors import DETECTORS, Detector, load_detector
from ood.temperature import probabilities

INFLUENCES_SHOWN = 6


@dataclass(frozen=True)
class Inspection:
    """N images inspected: C classes.

    Attributes:
        activations: what the pass left behind, with neighbours.
        predicted: (N,) index of the largest logit.
        confidence: (N,) calibrated probability of that class.
        scores: detector name to (N,) float32; larger means more outlying.
        p_values: detector name to (N,) conformal p-values.
        places: (N, 2) on the map.
        influences: of each image; None when they were not asked for or cannot be had.
    """

    activations: Activations
    predicted: np.ndarray
    confidence: np.ndarray
    scores: dict[str, np.ndarray]
    p_values: dict[str, np.ndarray]
    places: np.ndarray
    influences: list[Influences] | None = None

    def __len__(self) -> int:
        return len(self.predicted)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Inspections of one workspace, end to end; without influences."""
        return cls(
            activations=join_activations([part.activations for part in parts]),
            predicted=np.concatenate([part.predicted for part in parts]),
            confidence=np.concatenate([part.confidence for part in parts]),
            scores={n: np.concatenate([p.scores[n] for p in parts]) for n in parts[0].scores},
            p_values={n: np.concatenate([p.p_values[n] for p in parts]) for n in parts[0].p_values},
            places=np.concatenate([part.places for part in parts]),
        )


@dataclass(frozen=True)
class Workspace:
    """Read-only; one is shared by all users of the app.

    Attributes:
        path: its folder.
        manifest: what it says of itself.
        classifier: on the best device there is.
        bank: the training images.
        calibration: the held-out images.
        detectors: fitted, by name, the default first.
        calibration_scores: detector name to (n,) scores of the calibration images, in their order.
        conformal: detector name to its calibration.
        influence: on the refitted head; None when the head is too large.
        coordinates: (N, 2) of the training images on the map.
        calibration_places: (n, 2) of the calibration images on the map.
    """

    path: Path
    manifest: Manifest
    classifier: Classifier
    bank: Bank
    calibration: CalibrationSet
    detectors: dict[str, Detector]
    calibration_scores: dict[str, np.ndarray]
    conformal: dict[str, ConformalCalibration]
    influence: HeadInfluence | None
    coordinates: np.ndarray
    calibration_places: np.ndarray

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a prepared workspace; nothing in it is unpickled.

        A model given as module:function is imported and called: open only workspaces you trust.

        Raises:
            WorkspaceError: when it is incomplete, damaged or changed.
        """
        manifest = Manifest.read(path)
        try:
            weights = path / "weights.safetensors"
            network = load_network(
                manifest.model, read_state_dict(weights), len(manifest.classes), str(weights)
            )
            classifier = Classifier(network, manifest.preprocessing, manifest.classes)
            bank = Bank(ObservedSet.open(path / "bank"), classifier.head)
            calibration = CalibrationSet(ObservedSet.open(path / "calibration"), bank)
            scores = load_file(path / "calibration_scores.safetensors")
            # A workspace has the detectors that there were when it was prepared.
            names = [manifest.detector, *(n for n in DETECTORS if n in scores)]
            names = list(dict.fromkeys(names))
            influence = None
            if manifest.refit is not None:
                stored = load_file(path / "influence.safetensors")
                influence = HeadInfluence.from_inverse(
                    bank, stored["theta"], stored["inverse_hessian"], stored["self_influence"]
                )
            return cls(
                path=path,
                manifest=manifest,
                classifier=classifier,
                bank=bank,
                calibration=calibration,
                detectors={
                    name: load_detector(DETECTORS[name], path / f"detectors/{name}.safetensors")
                    for name in names
                },
                calibration_scores=scores,
                conformal={name: ConformalCalibration(np.sort(scores[name])) for name in names},
                influence=influence,
                coordinates=np.load(path / "map.npy"),
                calibration_places=np.load(path / "calibration_map.npy"),
            )
        except (OSError, ValueError, KeyError) as error:
            raise WorkspaceError(f"{path} cannot be opened: {error}") from error

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.manifest.classes

    @cached_property
    def samples(self) -> list[Path]:
        """Image files that a visitor can try, in order."""
        return sorted((self.path / "samples").glob("*"))

    def inspect(self, pixels: np.ndarray, *, influences: bool = False) -> Inspection:
        """One pass over N images, and everything that follows from it.

        Args:
            pixels: (N, channels, S, S) uint8, as `Preprocessing.pixels` makes them.
            influences: whether to explain each image by training images too.
        """
        activations = self.bank.locate(self.classifier.observe(pixels))
        chances = probabilities(activations.logits, self.manifest.temperature)
        scores = {name: d.score(activations) for name, d in self.detectors.items()}
        assert activations.neighbours is not None  # locate has just set them
        return Inspection(
            activations=activations,
            predicted=chances.argmax(axis=1),
            confidence=chances.max(axis=1),
            scores=scores,
            p_values={name: self.conformal[name].p_values(s) for name, s in scores.items()},
            places=place(activations.neighbours, self.coordinates),
            influences=self._explain_all(activations) if influences else None,
        )

    def decide(self, inspection: Inspection, level: float) -> list[Decision]:
        """A decision for each image by the default detector; no pass is made."""
        detector = self.manifest.detector
        return decide(
            inspection.p_values[detector], inspection.predicted, level=level,
            calibration_size=len(self.conformal[detector]), detector=detector,
        )  # fmt: skip

    def explain(self, activations: Activations, row: int) -> Influences | None:
        """Which training images made one image's prediction, against its runner-up."""
        if self.influence is None or len(self.classes) < 2:
            return None
        against, target = np.argsort(activations.logits[row])[-2:]
        return self.influence.explain(
            activations.features[row], int(target), int(against), INFLUENCES_SHOWN
        )

    def attribute(self, pixels: np.ndarray, target: int) -> np.ndarray:
        """Where the classifier looked; see `integrated_gradients`."""
        return integrated_gradients(self.classifier, pixels, target)

    def _explain_all(self, activations: Activations) -> list[Influences] | None:
        if self.influence is None:
            return None
        explained = (self.explain(activations, row) for row in range(len(activations)))
        return [influences for influences in explained if influences is not None]
