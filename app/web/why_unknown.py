"""Why an image is flagged, in pictures and plain words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import streamlit as st

from app.inspection import Inspection
from app.uploads import UploadedImage
from app.web.why_parts import show_distance, show_evidence, show_layers, show_nearest
from app.web.why_patches import show_patches
from app.workspace import Workspace
from models.activations import Activations
from ood.decision import Decision, Rule, Verdict
from ood.detectors import KNN, LayeredMahalanobis, Mahalanobis, ViM
from ood.detectors.base import DetectorInfo, Kind
from ood.detectors.masf import MaSF
from ood.directions import (
    ClassDistance,
    Direction,
    Spread,
    class_distance,
    dominant_directions,
    layer_shares,
)
from ood.reasons import (
    EvidenceParts,
    EvidenceReason,
    LayerReason,
    NeighbourReason,
    evidence_parts,
    evidence_reason,
    layer_reason,
    neighbour_reason,
)

_DISTANCE = "mds++"
_KINDS: dict[Kind, str] = {
    "layers": "look into its layers",
    "logits": "look only at how sure its answer is",
    "shaped": "reshape its features and look at the answer then",
    "joined": "weigh its features together with its answer",
    "distance": "measure how far it is from training images",
    "gradients": "look at the answer after a nudge",
}


@dataclass(frozen=True)
class Normal:
    """What reasons are measured against; the same for all images of a workspace.

    Attributes:
        spread: of Mahalanobis++; None without that detector.
        evidence: ViM's parts of the calibration images; None without that detector.
    """

    spread: Spread | None
    evidence: EvidenceParts | None


@dataclass(frozen=True)
class Reasons:
    """Of one image; None or empty where the workspace lacks the detector."""

    neighbours: NeighbourReason | None
    distance: ClassDistance | None
    directions: tuple[Direction, ...]
    evidence: EvidenceReason | None
    shares: np.ndarray | None
    layers: LayerReason | None


def show_why_unknown(
    workspace: Workspace,
    image: UploadedImage,
    inspection: Inspection,
    row: int,
    decision: Decision,
    rule: Rule,
    *,
    numbers: bool,
) -> None:
    """Who agrees, where it is odd, and what each kind of detector sees; for flagged images only."""
    if not decision.flagged:
        return
    unknown = decision.verdict is Verdict.UNKNOWN
    st.markdown(f"#### Why it {'is' if unknown else 'may be'} unknown")
    opinions = {name: bool(p[row] <= decision.level) for name, p in inspection.p_values.items()}
    st.markdown(agreement_sentence(workspace.panel.infos, opinions, rule))
    show_patches(workspace, image, numbers=numbers)
    path = workspace.key
    normal = _normal(path, workspace)
    reasons = _reasons(path, image.sha256, workspace, normal, inspection.activations, row)
    parts: dict[str, Callable[[], None]] = {}
    if reasons.neighbours is not None:
        parts["Nearest images"] = partial(
            show_nearest, workspace, reasons.neighbours, decision.level, numbers=numbers
        )
    if reasons.distance is not None:
        parts["Distance to classes"] = partial(
            show_distance, workspace, reasons.distance, reasons.directions,
            far=opinions[_DISTANCE], numbers=numbers,
        )  # fmt: skip
    if reasons.evidence is not None and normal.evidence is not None:
        parts["Features and evidence"] = partial(
            show_evidence, workspace, reasons.evidence, normal.evidence, decision, numbers=numbers
        )
    if reasons.layers is not None:
        parts["Layers and channels"] = partial(
            show_layers, workspace, reasons.layers, reasons.shares, numbers=numbers
        )
    if parts:
        for tab, show in zip(st.tabs(list(parts)), parts.values(), strict=True):
            with tab:
                show()


def agreement_sentence(
    infos: Mapping[str, DetectorInfo], opinions: Mapping[str, bool], rule: Rule
) -> str:
    """How many detectors flag the image, and of which kind they are.

    Args:
        infos: of all detectors.
        opinions: whether each of them flags the image, among the calibration images of all classes
            and on average over calibration sets.
        rule: what the decision was made by; where it is another one, the sentence says so.
    """
    votes: dict[Kind, list[bool]] = {kind: [] for kind in _KINDS}
    for name, flagged in opinions.items():
        votes[infos[name].kind].append(flagged)
    senses = {"over all classes": rule.by_class, "on average over calibration sets": rule.method}
    sense = ", ".join(words for words, differs in senses.items() if differs)
    total = f"**{sum(opinions.values())} of {len(opinions)} detectors flag it**"
    total += f" ({sense})" if sense else ""
    if all(opinions.values()):
        return f"{total}: they agree."
    kinds = sorted((v for v in votes.items() if v[1]), key=lambda v: -sum(v[1]) / len(v[1]))
    told = (f"{_count(flagged)} that {_KINDS[kind]}" for kind, flagged in kinds)
    return f"{total}: {', '.join(told)}."


def _count(flagged: list[bool]) -> str:
    yes, of = sum(flagged), len(flagged)
    if yes == of:
        return f"all {of}"
    return f"{yes} of {of}" if yes else f"none of {of}"


@st.cache_resource(max_entries=4, show_spinner="Measuring normal images ...")
def _normal(path: str, _workspace: Workspace) -> Normal:
    detectors = _workspace.panel.detectors
    distance, vim = detectors.get(_DISTANCE), detectors.get(ViM.info.name)
    activations = _workspace.calibration.activations
    return Normal(
        spread=Spread.of(distance) if isinstance(distance, Mahalanobis) else None,
        evidence=evidence_parts(vim, activations) if isinstance(vim, ViM) else None,
    )


@st.cache_data(max_entries=512, show_spinner="Looking for reasons ...")
def _reasons(
    path: str,
    sha256: str,
    _workspace: Workspace,
    _normal: Normal,
    _activations: Activations,
    _row: int,
) -> Reasons:
    detectors, scores = _workspace.panel.detectors, _workspace.calibration_scores
    at = (_activations, _row)
    knn, distance, vim, layered, masf = (
        detectors.get(name) for name in (KNN.info.name, _DISTANCE, ViM.info.name, "layers", "masf")
    )
    neighbours, to_class, evidence, shares, layers = None, None, None, None, None
    directions: list[Direction] = []
    if isinstance(knn, KNN):
        neighbours = neighbour_reason(knn, *at, scores[KNN.info.name])
    if isinstance(distance, Mahalanobis) and _normal.spread is not None:
        classes = np.unique(_workspace.bank.images.labels)
        to_class = class_distance(distance, *at, classes, scores[_DISTANCE])
        directions = dominant_directions(distance, _normal.spread, *at, _workspace.bank)
    if isinstance(vim, ViM) and _normal.evidence is not None:
        evidence = evidence_reason(vim, *at, _normal.evidence)
    if isinstance(layered, LayeredMahalanobis):
        shares = layer_shares(layered, *at)
    if isinstance(masf, MaSF):
        layers = layer_reason(masf, *at)
    return Reasons(neighbours, to_class, tuple(directions), evidence, shares, layers)
