"""A classifier with everything that was prepared around it, opened once and shared."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file

from app.audit import AUDIT_FILE, Audit
from app.influences import open_influence
from app.inspection import Inspection
from app.manifest import Manifest, WorkspaceError
from app.networks import open_networks
from app.novelty_layer import NOVELTY_LAYER_FILE, NoveltyLayer
from app.outliers import read_outliers
from explain.attribution import integrated_gradients
from explain.head import RefittedHead
from explain.influence import HeadInfluence, Influences
from explain.kfac import KFACInfluence
from explain.map import place
from explain.network import NetworkInfluence
from explain.refits import HeadRefits
from explain.unfairness import SingleFlips
from models.activations import Activations
from models.bank import Bank, CalibrationSet
from models.classifier import Classifier
from models.loading import load_network, read_state_dict
from models.observed import ObservedSet
from ood.conditional import METHODS, conditional_p_values
from ood.conformal import ConformalCalibration, MondrianCalibration
from ood.decision import Decision, Rule, decide, flagging_rank
from ood.panel import Panel
from ood.patches import PatchBank, PatchMap
from ood.store import load_fitted
from ood.temperature import fit_temperature, probabilities

INFLUENCES_SHOWN = 6
SINGLE_FLIPS_FILE = "single_flips.safetensors"


@dataclass(frozen=True)
class Workspace:
    """Read-only; one is shared by all users of the app.

    Attributes:
        path: its folder.
        manifest: what it says of itself.
        classifier: on the best device there is.
        bank: the training images.
        calibration: the held-out images.
        panel: the detectors.
        calibration_scores: detector name to (n,) scores of the calibration images, in their order.
        training_scores: detector name to scores of a sample of the training images.
        outliers: name of a ready-made set to detector name to its scores.
        patches: of training images; None when the network keeps no places.
        conformal: detector name to its calibration.
        influence: on the refitted head; on the head as it is where that is too large to be
            refitted; None where neither can be had.
        coordinates: (N, 2) of the training images on the map.
        calibration_places: (n, 2) of the calibration images on the map.
    """

    path: Path
    manifest: Manifest
    classifier: Classifier
    bank: Bank
    calibration: CalibrationSet
    panel: Panel
    calibration_scores: dict[str, np.ndarray]
    training_scores: dict[str, np.ndarray]
    outliers: dict[str, dict[str, np.ndarray]]
    patches: PatchBank | None
    conformal: dict[str, ConformalCalibration]
    influence: HeadInfluence | KFACInfluence | None
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
            patches = path / "patches.safetensors"
            return cls(
                path=path,
                manifest=manifest,
                classifier=classifier,
                bank=bank,
                calibration=calibration,
                # A workspace has the detectors that there were when it was prepared.
                panel=Panel.load(path / "panel", manifest.fit_seconds),
                calibration_scores=scores,
                training_scores=load_file(path / "training_scores.safetensors"),
                outliers=read_outliers(load_file(path / "outliers.safetensors")),
                patches=load_fitted(PatchBank, patches) if patches.exists() else None,
                conformal={n: ConformalCalibration(np.sort(s)) for n, s in scores.items()},
                influence=open_influence(bank, path, manifest),
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
    def audit(self) -> Audit | None:
        """What is doubtful about the training images; None in a workspace of before audits."""
        path = self.path / AUDIT_FILE
        return load_fitted(Audit, path) if path.exists() else None

    @cached_property
    def trusted(self) -> np.ndarray | None:
        """(N,) bool: training images to which the others give no other label."""
        return None if self.audit is None else self.audit.suggested < 0

    @cached_property
    def networks(self) -> list[NetworkInfluence]:
        """Whole-network influence at each checkpoint it was fitted for; often none.

        Raises:
            WorkspaceError: when one is damaged or has changed.
        """
        return open_networks(self.path, self.manifest, self.classifier)

    @cached_property
    def single_flips(self) -> SingleFlips | None:
        """Calibration images that one training image decides; None where nothing is refitted."""
        path = self.path / SINGLE_FLIPS_FILE
        return load_fitted(SingleFlips, path) if path.exists() else None

    @cached_property
    def novelty_layer(self) -> NoveltyLayer:
        """Where new classes are looked for; the last layer in a workspace of before."""
        path = self.path / NOVELTY_LAYER_FILE
        if path.exists():
            return load_fitted(NoveltyLayer, path)
        return NoveltyLayer.penultimate(self.calibration.images.activations)

    @cached_property
    def training_ids(self) -> list[str]:
        """What each training image is known by: its pixels' sha256; later copies get -2 and on."""
        images, copies = self.bank.images, Counter[str]()
        ids = []
        for row in range(len(images)):
            sha256 = images.sha256(row)
            copies[sha256] += 1
            ids.append(sha256 if copies[sha256] == 1 else f"{sha256}-{copies[sha256]}")
        return ids

    @cached_property
    def rows_by_id(self) -> dict[str, int]:
        """Where a training image is in the Bank, by `training_ids`."""
        return {known_by: row for row, known_by in enumerate(self.training_ids)}

    @cached_property
    def key(self) -> str:
        """What caches know it by: another preparation at the same path has another."""
        digests = json.dumps(self.manifest.digests, sort_keys=True).encode()
        return f"{self.path} {hashlib.sha256(digests).hexdigest()}"

    @cached_property
    def samples(self) -> list[Path]:
        """Image files that a visitor can try, in order."""
        return sorted((self.path / "samples").glob("*"))

    def inspect(
        self, pixels: np.ndarray, *, influences: bool = False, gradients: bool = False
    ) -> Inspection:
        """One pass over N images, and everything that follows from it.

        Args:
            pixels: (N, channels, S, S) uint8, as `Preprocessing.pixels` makes them.
            influences: whether to explain each image by training images too.
            gradients: whether to score with ODIN too, which takes about five passes more; where
                it decides, it scores in any case.
        """
        activations = self.bank.locate(self.classifier.observe(pixels))
        chances = probabilities(activations.logits, self.manifest.temperature)
        scores = self.panel.score(activations)
        if gradients or self.manifest.detector not in scores:
            scores |= self.panel.score_gradients(self.classifier, pixels)
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

    @cached_property
    def refits(self) -> HeadRefits | None:
        """Refits of the last layer without some training images; None for large heads."""
        if not isinstance(self.influence, HeadInfluence) or self.manifest.refit is None:
            return None
        facts = self.manifest.refit
        head = RefittedHead(self.influence.theta, facts["l2"], facts["gradient_norm"])
        return HeadRefits.of(self.bank, head, self.influence.inverse_hessian)

    @cached_property
    def refit_temperature(self) -> float:
        """That calibrates the confidence of the refitted last layer."""
        assert self.refits is not None
        images = self.calibration.images
        logits = self.refits.head.logits(np.asarray(images.activations.features))
        return fit_temperature(logits, images.labels)

    @cached_property
    def mondrian(self) -> MondrianCalibration:
        """The default detector's calibration by predicted class."""
        return MondrianCalibration.fit(
            self.calibration_scores[self.manifest.detector],
            self._calibration_predicted,
            len(self.classes),
        )

    def p_values(self, inspection: Inspection, rule: Rule) -> np.ndarray:
        """(N,) p-values of the default detector, in the sense that the rule asks for."""
        detector = self.manifest.detector
        if rule.by_class:
            p_values = self.mondrian.p_values(inspection.scores[detector], inspection.predicted)
        else:
            p_values = inspection.p_values[detector]
        if not rule.method:
            return p_values
        adjusted, sizes = np.empty(len(p_values)), self._sizes(inspection, rule)
        for size in np.unique(sizes):
            rows = sizes == size
            bounds = METHODS[rule.method](int(size))
            adjusted[rows] = conditional_p_values(p_values[rows], bounds)
        return adjusted

    def decide(self, inspection: Inspection, rule: Rule) -> list[Decision]:
        """A decision for each image by the default detector; no pass is made."""
        return decide(
            self.p_values(inspection, rule), inspection.predicted, level=rule.level,
            calibration_size=self._sizes(inspection, rule), detector=self.manifest.detector,
            by_class=rule.by_class, method=rule.method,
        )  # fmt: skip

    def reference(self, rule: Rule, predicted: int) -> ConformalCalibration:
        """The calibration images that an image of this predicted class is compared with."""
        if rule.by_class:
            return self.mondrian.categories[self.mondrian.category_of[predicted]]
        return self.conformal[self.manifest.detector]

    def threshold(self, rule: Rule, predicted: int) -> float:
        """The default detector's score above which an image of this predicted class is flagged."""
        reference = self.reference(rule, predicted)
        rank = flagging_rank(rule.level, len(reference), rule.method)
        return reference.threshold_of_rank(rank)

    def calibration_flagged(self, rule: Rule) -> np.ndarray:
        """(n,) bool: which calibration images the rule would flag."""
        thresholds = [self.threshold(rule, c) for c in range(len(self.classes))]
        scores = self.calibration_scores[self.manifest.detector]
        return scores > np.array(thresholds)[self._calibration_predicted]

    @cached_property
    def _calibration_predicted(self) -> np.ndarray:
        return self.calibration.images.activations.logits.argmax(axis=1)

    def _sizes(self, inspection: Inspection, rule: Rule) -> np.ndarray:
        if rule.by_class:
            return self.mondrian.sizes(inspection.predicted)
        return np.full(len(inspection), len(self.conformal[self.manifest.detector]))

    def explain(
        self, activations: Activations, row: int, against: int | None = None
    ) -> Influences | None:
        """Which training images made one image's prediction, against its runner-up or a class.

        Only images whose labels are not doubted are among the helpful ones.
        """
        if self.influence is None or len(self.classes) < 2:
            return None
        runner_up, target = (int(c) for c in np.argsort(activations.logits[row])[-2:])
        return self.influence.explain(
            activations.features[row], target, runner_up if against is None else against,
            INFLUENCES_SHOWN, self.trusted,
        )  # fmt: skip

    def patch_map(self, pixels: np.ndarray) -> PatchMap | None:
        """Where one image, (channels, S, S) uint8, is unlike anything learned; another pass."""
        if self.patches is None:
            return None
        return self.patches.locate(self.classifier.observe_patches(pixels[None])[0])

    def attribute(self, pixels: np.ndarray, target: int) -> np.ndarray:
        """Where the classifier looked; see `integrated_gradients`."""
        return integrated_gradients(self.classifier, pixels, target)

    def _explain_all(self, activations: Activations) -> list[Influences] | None:
        if self.influence is None:
            return None
        explained = (self.explain(activations, row) for row in range(len(activations)))
        return [influences for influences in explained if influences is not None]
