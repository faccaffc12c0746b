"""How many normal images may be flagged, and in what sense."""

import streamlit as st

from app.web.wording import level_sentence
from app.workspace import Workspace
from ood.conformal import rank_interval
from ood.decision import Rule, can_be_unknown, flagging_rank

_ON_AVERAGE = "On average over calibration sets"
_METHODS = {
    _ON_AVERAGE: "",
    "With 95% confidence for this one": "monte_carlo",
    "The same, by Simes' inequality": "simes",
    "The same, by the DKW inequality": "dkw",
}


def choose_rule(workspace: Workspace) -> Rule:
    """The level and its sense, and what it does to normal images."""
    left, right = st.columns([2, 3], gap="large", vertical_alignment="center")
    percent = left.slider(
        "Share of normal images that may be flagged",
        0.5, 20.0, 5.0, 0.5, format="%.1f%%", key="level", bind="query-params",
    )  # fmt: skip
    with right:
        said = st.empty()
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            by_class = st.toggle(
                "For each class alone",
                key="by-class",
                bind="query-params",
                help="Each image is compared with normal images that the classifier gives the same "
                "answer, so that the share holds for each answer. Those with fewer than 200 such "
                "images share theirs.",
            )
            sense = st.selectbox(
                "The share holds",
                list(_METHODS),
                key="sense",
                bind="query-params",
                label_visibility="collapsed",
                width=300,
                help="Another set of held-out images would flag another share. On average over "
                "such sets the share is right; with confidence, it is not exceeded by this one.",
            )
    rule = Rule(percent / 100, by_class, _METHODS[sense])
    _say(workspace, rule, said)
    return rule


def _say(workspace: Workspace, rule: Rule, place: "st.delta_generator.DeltaGenerator") -> None:
    categories = (
        workspace.mondrian.categories
        if rule.by_class
        else (workspace.conformal[workspace.manifest.detector],)
    )
    ranks = [flagging_rank(rule.level, len(c), rule.method) for c in categories]
    size = sum(map(len, categories))
    if not all(ranks):
        place.warning(
            f"{size:,} calibration images are too few to flag anything at {rule.level:.1%}"
            f"{' within some classes' if any(ranks) else ''}.",
            icon=":material/warning:",
        )
        return
    flagged = int(workspace.calibration_flagged(rule).sum())
    realised = [rank_interval(rank, len(c)) for c, rank in zip(categories, ranks, strict=True)]
    said = level_sentence(rule, flagged, size, realised)
    if not any(can_be_unknown(rule, len(c)) for c in categories):
        said += " No image can be called *unknown* here, only *unsure*: too few were held out."
    place.caption(said)
