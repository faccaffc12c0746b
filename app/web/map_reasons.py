"""Why the selected images are where they are: training images behind them, doubtful labels."""

from collections import Counter

import numpy as np
import streamlit as st

from app.audit import reasons
from app.map_layers import Dots, Layer
from app.map_selection import Origins
from app.sampling import evenly
from app.web.pictures import gallery
from app.web.wording import plain
from app.workspace import INFLUENCES_SHOWN, Workspace
from models.activations import Activations

MOST_EXPLAINED = 50
_LISTED = 12
_SIDE = 64
_REASONS = {
    "label": "perhaps labelled wrongly",
    "duplicate": "copies of others",
    "leak": "calibration images too",
    "odd": "unlike all others",
    "harmful": "hurting the classifier",
    "worthless": "worth less than nothing to their neighbours",
}


def show_makers(origins: Origins, dots: Dots, rows: np.ndarray) -> None:
    """Training images that helped most to make the model's answers for the images without label."""
    workspace = origins.workspace
    asked = rows[dots.of_layer(Layer.UPLOADS)[rows] | dots.of_layer(Layer.INBOX)[rows]]
    if not len(asked) or workspace.influence is None:
        return
    if not st.toggle("What made these?", key="map-makers"):
        return
    some = asked[evenly(len(asked), MOST_EXPLAINED)]
    with st.spinner("Asking which training images made these answers ..."):
        helped, times = summed_influence(workspace, _activations(origins, dots, some))
    if not helped:
        st.caption("No training image helped noticeably.")
        return
    whose = f"{len(some):,} of the {len(asked):,}" if len(some) < len(asked) else f"{len(some):,}"
    st.caption(
        f"The training images that helped most to the model's answers for {whose} images without a "
        f"label, by influence summed over the {INFLUENCES_SHOWN} that helped each one most. For "
        "images that are unlike all it has learned this says where a wrong answer comes from."
    )
    first = sorted(helped, key=lambda row: -helped[row])[:_LISTED]
    labels = workspace.bank.images.labels
    captions = [f"{plain(workspace.classes[labels[r]])}  \nhelped {times[r]:,}" for r in first]
    gallery(workspace, first, captions, side=_SIDE)


def summed_influence(
    workspace: Workspace, activations: Activations
) -> tuple[dict[int, float], Counter[int]]:
    """Rows of helpful training images to how much they added to the margins, and to how many."""
    helped: dict[int, float] = {}
    times = Counter[int]()
    for place in range(len(activations)):
        found = workspace.explain(activations, place)
        if found is None:
            continue
        for row, influence in zip(found.helpful, found.helpful_influence, strict=True):
            helped[int(row)] = helped.get(int(row), 0.0) - float(influence)
            times[int(row)] += 1
    return helped, times


def show_doubts(workspace: Workspace, dots: Dots, rows: np.ndarray) -> None:
    """The labels of selected training images, and the most doubtful of them."""
    learned = dots.rows[rows[dots.of_layer(Layer.TRAINING)[rows]]]
    if not len(learned):
        return
    classes, labels = workspace.classes, np.asarray(workspace.bank.images.labels)
    counts = Counter(classes[label] for label in labels[learned])
    said = ", ".join(f"{n:,} {plain(name)}" for name, n in counts.most_common(5))
    more = f" and {len(counts) - 5:,} others" if len(counts) > 5 else ""
    st.markdown(f"**Labels of the {len(learned):,} training images**: {said}{more}.")
    audit = workspace.audit
    if audit is None:
        return
    found = {_REASONS[name]: int(doubtful[learned].sum())
             for name, doubtful in reasons(audit).items()}  # fmt: skip
    if not any(found.values()):
        st.caption("Nothing doubtful was found among them.")
        return
    told = ", ".join(f"{count:,} {why}" for why, count in found.items() if count)
    st.caption(f"Doubtful among them: {told}. *Training set* has the lists.")
    wrong = learned[audit.flagged[learned] & (audit.suggested[learned] >= 0)]
    wrong = wrong[np.argsort(-audit.suspicion[wrong], kind="stable")][:_LISTED]
    captions = [
        f"{plain(classes[labels[row]])}  \nothers: {plain(classes[audit.suggested[row]])}"
        for row in wrong
    ]
    gallery(workspace, wrong, captions, side=_SIDE)


def _activations(origins: Origins, dots: Dots, rows: np.ndarray) -> Activations:
    """Features of images of the batch or the inbox; logits of the last layer made from them."""
    parts = []
    own = dots.of_layer(Layer.UPLOADS)[rows]
    if own.any():
        assert origins.inspection is not None  # its images are among the dots
        parts.append(origins.inspection.activations.features[dots.rows[rows[own]]])
    if not own.all():
        assert origins.stream is not None  # its images are among the dots
        parts.append(origins.stream.vectors.features[dots.rows[rows[~own]]])
    features, head = np.concatenate(parts).astype(np.float32), origins.workspace.bank.head
    return Activations(logits=features @ head.weight.T + head.bias, features=features)
