"""What is drawn on the map: images of several layers, and what colours them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

import numpy as np
from scipy.special import logsumexp

from app.inbox_contents import Stream
from app.inspection import Inspection
from app.new_class_replay import LEVEL
from app.workspace import Workspace
from ood.decision import Rule, Verdict, decide

GROUPS_NAMED = 8
_CHUNK = 65_536


class Layer(StrEnum):
    """What can be switched on and off; groups are images of the inbox that are alike."""

    TRAINING = "Training images"
    NORMAL = "Normal but flagged"
    UPLOADS = "Yours"
    INBOX = "Inbox"
    GROUPS = "Groups"


class Colour(StrEnum):
    """What a dot's colour says."""

    CLASS = "Class"
    VERDICT = "Verdict"
    P_VALUE = "p-value"
    GROUP = "Group"
    LOSS = "Loss"


LAYERS, VERDICTS = tuple(Layer), tuple(Verdict)


@dataclass(frozen=True)
class Dots:
    """M images on the map.

    Attributes:
        layers: (M,) int8, place in `LAYERS`; no image is of the layer of groups.
        rows: (M,) int64, of the Bank, the calibration images, the batch or the stream.
        places: (M, 2).
        classes: (M,) int64, the label; where there is none, the class that the model gives.
        verdicts: (M,) int8, place in `VERDICTS`; -1 for training images.
        p_values: (M,) NaN for training images.
        losses: (M,) cross-entropy; NaN without a label.
        groups: (M,) int64, -1 in none.
        twins: (M,) bool, images of the inbox that are in the batch too.
    """

    layers: np.ndarray
    rows: np.ndarray
    places: np.ndarray
    classes: np.ndarray
    verdicts: np.ndarray
    p_values: np.ndarray
    losses: np.ndarray
    groups: np.ndarray
    twins: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(
        cls, layer: Layer, rows: np.ndarray, places: np.ndarray, classes: np.ndarray, *,
        p_values: np.ndarray | None = None, verdicts: np.ndarray | None = None,
        losses: np.ndarray | None = None, groups: np.ndarray | None = None,
        twins: np.ndarray | None = None,
    ) -> Self:  # fmt: skip
        """Images of one layer; what it has none of is left out."""
        count = len(rows)
        return cls(
            layers=np.full(count, LAYERS.index(layer), np.int8),
            rows=np.asarray(rows, np.int64),
            places=np.asarray(places, np.float32).reshape(count, 2),
            classes=np.asarray(classes, np.int64),
            verdicts=np.full(count, -1, np.int8) if verdicts is None else verdicts,
            p_values=np.full(count, np.nan) if p_values is None else p_values,
            losses=np.full(count, np.nan) if losses is None else losses,
            groups=np.full(count, -1, np.int64) if groups is None else groups,
            twins=np.zeros(count, bool) if twins is None else twins,
        )

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Images of several layers, in order."""
        names = cls.__dataclass_fields__
        return cls(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})

    def of_layer(self, layer: Layer) -> np.ndarray:
        """(M,) bool."""
        return self.layers == LAYERS.index(layer)

    @property
    def flagged(self) -> np.ndarray:
        """(M,) bool: said to be unlike the known classes, or perhaps so."""
        return np.isin(self.verdicts, [_place(Verdict.UNKNOWN), _place(Verdict.UNSURE)])

    def visible(self, layers: Sequence[Layer]) -> np.ndarray:
        """Rows of the images in these layers, each image once.

        Of the inbox, those in groups are shown with either layer.
        """
        shown = np.isin(self.layers, [LAYERS.index(layer) for layer in layers])
        if Layer.GROUPS in layers:
            shown |= self.of_layer(Layer.INBOX) & (self.groups >= 0)
        if Layer.UPLOADS in layers:
            shown &= ~self.twins
        return np.flatnonzero(shown)


def training_dots(workspace: Workspace) -> Dots:
    """The training images, with their labels."""
    images = workspace.bank.images
    labels = np.asarray(images.labels)
    losses = cross_entropy(images.activations.logits, labels, workspace.manifest.temperature)
    return Dots.of(
        Layer.TRAINING, np.arange(len(labels)), workspace.coordinates, labels, losses=losses
    )


def calibration_dots(workspace: Workspace) -> Dots:
    """The calibration images that are flagged at 5%, with their labels.

    A calibration image counts itself among those that look at least as odd.
    """
    rows = np.flatnonzero(workspace.calibration_flagged(Rule(LEVEL)))
    images, detector = workspace.calibration.images, workspace.manifest.detector
    labels = np.asarray(images.labels)[rows]
    logits = np.asarray(images.activations.logits[rows])
    p_values = workspace.conformal[detector].p_values(workspace.calibration_scores[detector][rows])
    return Dots.of(
        Layer.NORMAL, rows, workspace.calibration_places[rows], labels, p_values=p_values,
        verdicts=verdicts_of(workspace, p_values, labels),
        losses=cross_entropy(logits, labels, workspace.manifest.temperature),
    )  # fmt: skip


def upload_dots(workspace: Workspace, inspection: Inspection, groups: np.ndarray) -> Dots:
    """The images of a batch, with the classes that the model gives them.

    Args:
        workspace: that inspected them.
        inspection: of N images.
        groups: (N,) group in the inbox; -1 for none.
    """
    p_values, predicted = workspace.p_values(inspection, Rule(LEVEL)), inspection.predicted
    return Dots.of(
        Layer.UPLOADS, np.arange(len(inspection)), inspection.places, predicted,
        p_values=p_values, groups=groups, verdicts=verdicts_of(workspace, p_values, predicted),
    )  # fmt: skip


def inbox_dots(
    workspace: Workspace, stream: Stream, rows: np.ndarray, places: np.ndarray,
    groups: np.ndarray, twins: np.ndarray,
) -> Dots:  # fmt: skip
    """Images in the inbox, with the classes that the model gives them.

    Args:
        workspace: whose inbox it is.
        stream: everything in it.
        rows: (n,) of the stream, those to be shown.
        places: (n, 2) of them on the map.
        groups: (n,) group of each; -1 for none.
        twins: (n,) bool, in the batch too.
    """
    p_values, predicted = stream.p_values[rows], stream.predicted[rows]
    return Dots.of(
        Layer.INBOX, rows, places, predicted, p_values=p_values, groups=groups, twins=twins,
        verdicts=verdicts_of(workspace, p_values, predicted),
    )  # fmt: skip


def verdicts_of(workspace: Workspace, p_values: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """(N,) int8, places in `VERDICTS`, at 5%."""
    size, detector = len(workspace.calibration), workspace.manifest.detector
    decisions = decide(p_values, predicted, level=LEVEL, calibration_size=size, detector=detector)
    return np.array([_place(decision.verdict) for decision in decisions], np.int8)


def cross_entropy(logits: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
    """(N,) minus the log of the calibrated probability of the label.

    Args:
        logits: (N, C), perhaps mapped from disk.
        labels: (N,).
        temperature: that calibrates the confidence.
    """
    losses = np.empty(len(labels))
    for start in range(0, len(labels), _CHUNK):
        part = slice(start, start + _CHUNK)
        scaled = np.asarray(logits[part], np.float64) / temperature
        own = scaled[np.arange(len(scaled)), labels[part]]
        losses[part] = logsumexp(scaled, axis=1) - own
    return losses


@dataclass(frozen=True)
class Colouring:
    """Which colour each of M images gets.

    Attributes:
        names: of the categories, for a legend.
        none: name of those that have no category; "" where all have one.
        of: (M,) int64, category; -1 for none.
    """

    names: tuple[str, ...]
    none: str
    of: np.ndarray


_P_EDGES = (0.001, 0.01, LEVEL)
_P_NAMES = ("p up to 0.001", "p up to 0.01", "p up to 0.05", "p above 0.05")
# Losses of labels that are given 90, 50 and 10%.
_LOSS_EDGES = tuple(-np.log([0.9, 0.5, 0.1]))
_LOSS_NAMES = tuple(
    f"loss {low} (label given {share})"
    for low, share in (
        ("under 0.1", "over 90%"), ("0.1 to 0.7", "50 to 90%"),
        ("0.7 to 2.3", "10 to 50%"), ("over 2.3", "under 10%"),
    )
)  # fmt: skip


def colouring(dots: Dots, colour: Colour, classes: Sequence[str]) -> Colouring:
    """Categories by what the colour is to say.

    Args:
        dots: M images.
        colour: what that is.
        classes: names of the classes.
    """
    if colour is Colour.CLASS:
        return Colouring(tuple(classes), "", dots.classes)
    if colour is Colour.VERDICT:
        return Colouring(tuple(VERDICTS), "no verdict: learned from", dots.verdicts.astype(int))
    if colour is Colour.GROUP:
        more = f"Group {GROUPS_NAMED + 1} and on"
        names = (*(f"Group {n + 1}" for n in range(GROUPS_NAMED)), more)
        return Colouring(names, "in no group", np.minimum(dots.groups, GROUPS_NAMED))
    if colour is Colour.P_VALUE:
        of = np.searchsorted(_P_EDGES, dots.p_values)
        return Colouring(
            _P_NAMES, "no p-value: learned from", np.where(np.isnan(dots.p_values), -1, of)
        )
    of = np.searchsorted(_LOSS_EDGES, dots.losses)
    return Colouring(_LOSS_NAMES, "no label, so no loss", np.where(np.isnan(dots.losses), -1, of))


def _place(verdict: Verdict) -> int:
    return VERDICTS.index(verdict)
