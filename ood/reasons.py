"""Why a detector finds an image odd: what set its score, and what is normal there."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import logsumexp

from models.activations import Activations
from ood.detectors.masf import MaSF, stack_layers
from ood.detectors.neighbours import KNN
from ood.detectors.subspace import Residual, ViM
from ood.quantiles import COARSE_LEVELS, QuantileTable

NEAREST_SHOWN = 5
CLASSES_SHOWN = 3
CHANNELS_SHOWN = 4


@dataclass(frozen=True)
class NeighbourReason:
    """The neighbours that set one image's kNN distance.

    Attributes:
        rows: (r,) rows of the Bank, nearest first; the last one is the k-th and sets the distance.
        ranks: (r,) which neighbour each is, from 1.
        distances: (r,) Euclidean between unit features.
        usual: median distance of calibration images to their k-th neighbour.
        as_far: share of calibration images that are at least as far from theirs.
    """

    rows: np.ndarray
    ranks: np.ndarray
    distances: np.ndarray
    usual: float
    as_far: float


@dataclass(frozen=True)
class EvidenceParts:
    """The two parts of ViM of N images; the score is `residual` - `energy`.

    Attributes:
        residual: (N,), alpha |R'(z - u)|, in logits.
        energy: (N,), log sum_c exp f_c.
    """

    residual: np.ndarray
    energy: np.ndarray


@dataclass(frozen=True)
class EvidenceReason:
    """Whether ViM's residual or its energy makes one image odd.

    Attributes:
        residual: part of the score, in logits.
        energy: taken off the score, in logits.
        as_moved: share of calibration images with at least this residual.
        as_weak: share of calibration images with at most this energy.
        classes: (c,) the classes with the largest logits, the largest first.
        logits: (c,) theirs.
    """

    residual: float
    energy: float
    as_moved: float
    as_weak: float
    classes: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class ChannelReason:
    """One channel that answers as it hardly does for the predicted class.

    Attributes:
        layer: index of its layer; the last one is the penultimate features.
        channel: its number in that layer.
        kind: which of its numbers is meant: over the image, or one of the features.
        p_value: two-sided, among training images of the class.
        stronger: whether it answers more than usual, not less.
        exciting: (4,) rows of the Bank, the images that excite it most.
    """

    layer: int
    channel: int
    kind: Literal["mean", "maximum", "feature"]
    p_value: float
    stronger: bool
    exciting: np.ndarray


@dataclass(frozen=True)
class LayerReason:
    """What the layers say of one image.

    Attributes:
        label: the class with whose training images it is compared; None for those of all classes.
        size: how many those are.
        p_values: (L,) Simes's p-value of each layer, the features last.
        channels: the oddest ones, the smallest p-value first; each channel once.
    """

    label: int | None
    size: int
    p_values: np.ndarray
    channels: tuple[ChannelReason, ...]


def neighbour_reason(
    detector: KNN, activations: Activations, row: int, calibration_scores: np.ndarray
) -> NeighbourReason:
    """The nearest few and the k-th neighbour of one of N located images.

    Args:
        detector: fitted.
        activations: with neighbours.
        row: which image.
        calibration_scores: (n,) the detector's scores of the calibration images.
    """
    found = activations.neighbours
    if found is None:
        raise ValueError("These activations have no neighbours yet; call Bank.locate first.")
    chosen = np.unique([*range(min(NEAREST_SHOWN, detector.k)), detector.k - 1])
    distances = found.distances[row, chosen]
    return NeighbourReason(
        rows=found.rows[row, chosen],
        ranks=chosen + 1,
        distances=distances,
        usual=float(np.median(calibration_scores)),
        as_far=float((calibration_scores >= distances[-1]).mean()),
    )


def evidence_parts(detector: ViM, activations: Activations) -> EvidenceParts:
    """ViM's score of N images, taken apart."""
    residual = Residual(detector.origin, detector.residual).score(activations)
    energy = logsumexp(np.asarray(activations.logits, np.float64), axis=1)
    return EvidenceParts(detector.alpha * residual, energy)


def evidence_reason(
    detector: ViM, activations: Activations, row: int, normal: EvidenceParts
) -> EvidenceReason:
    """Which of the two parts is out of the ordinary.

    Args:
        detector: fitted.
        activations: of N images.
        row: which of them.
        normal: of the calibration images.
    """
    own = evidence_parts(detector, activations.take(np.array([row])))
    logits = activations.logits[row]
    classes = np.argsort(-logits, kind="stable")[:CLASSES_SHOWN]
    return EvidenceReason(
        residual=float(own.residual[0]),
        energy=float(own.energy[0]),
        as_moved=float((normal.residual >= own.residual[0]).mean()),
        as_weak=float((normal.energy <= own.energy[0]).mean()),
        classes=classes,
        logits=logits[classes],
    )


def layer_reason(detector: MaSF, activations: Activations, row: int) -> LayerReason:
    """The p-values of the layers, and the 4 oddest channels, of one of N images."""
    one = activations.take(np.array([row]))
    evidence = detector.explain(one)
    p_values = evidence.channels[0]
    group = _group(detector, one)
    # The last stage's means may be the features: then both are numbers of the same channels.
    pooled = len(one.means) < len(one.maxima)
    channels: dict[tuple[int, int], ChannelReason] = {}
    for number in np.argsort(p_values, kind="stable"):
        layer, channel, kind = _locate(one, int(number))
        key = (min(layer, len(one.maxima) - 1) if pooled else layer), channel
        if key not in channels:  # a channel's mean and its maximum are one reason
            channels[key] = ChannelReason(
                layer=layer,
                channel=channel,
                kind=kind,
                p_value=float(p_values[number]),
                stronger=_stronger(detector, group, one, int(number)),
                exciting=detector.exciting[number],
            )
        if len(channels) == CHANNELS_SHOWN:
            break
    return LayerReason(
        label=group if len(detector.values) > 1 else None,
        size=int(detector.sizes[group]),
        p_values=evidence.layers[0],
        channels=tuple(channels.values()),
    )


def _group(detector: MaSF, activations: Activations) -> int:
    """Which tables the image is compared with: those of the predicted class, or the only ones."""
    return int(activations.logits[0].argmax()) if len(detector.values) > 1 else 0


def _locate(
    activations: Activations, number: int
) -> tuple[int, int, Literal["mean", "maximum", "feature"]]:
    """Layer, channel and kind of a number, counted as `stack_layers` puts them end to end."""
    for layer, maxima in enumerate(activations.maxima):
        for means in activations.means[layer : layer + 1]:
            if number < means.shape[1]:
                return layer, number, "mean"
            number -= means.shape[1]
        if number < maxima.shape[1]:
            return layer, number, "maximum"
        number -= maxima.shape[1]
    return len(activations.maxima), number, "feature"


def _stronger(detector: MaSF, group: int, activations: Activations, number: int) -> bool:
    """Whether the number is nearer the upper end of its table than the lower one."""
    answer = np.concatenate(stack_layers(activations), axis=1)[:, [number]]
    table = QuantileTable(
        detector.values[group, [number]],
        detector.tails[group, [number]],
        int(detector.sizes[group]),
        COARSE_LEVELS,
    )
    return bool(table.upper(answer)[0, 0] <= table.lower(answer)[0, 0])
