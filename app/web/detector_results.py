"""Detectors compared in detail: two histograms, who agrees, files to take away."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import streamlit as st

from app.comparison import Agreement, Comparison, Contender, agreement, compare, contenders
from app.comparison_tables import WRITERS
from app.web.detector_charts import agreement_map, two_histograms
from app.web.detector_sets import OutlierSet
from app.web.detector_table import DETECTOR_KEY, deciding
from app.web.resources import inference_executor
from app.web.state import Session
from app.workspace import Workspace

LEVEL = 0.05
_FILES = {"csv": ("CSV", "csv", "text/csv"), "markdown": ("Markdown", "md", "text/markdown"),
           "latex": ("LaTeX", "tex", "text/x-tex")}  # fmt: skip


def measured_contenders(workspace: Workspace) -> dict[str, Contender]:
    """The workspace's detectors, their time measured once for all users."""
    return _contenders(workspace.key, workspace)


@st.cache_resource(show_spinner="Timing the detectors ...", max_entries=4)
def _contenders(path: str, _workspace: Workspace) -> dict[str, Contender]:
    # In turn with the batches of others: what runs beside it would spoil the times.
    return inference_executor().submit(contenders, _workspace).result()


def compared_on(
    workspace: Workspace, among: Mapping[str, Contender], chosen: OutlierSet
) -> list[Comparison]:
    """Every detector on this set, the best AUROC first."""
    return _compared(workspace.key, chosen.key, workspace, among, chosen)


@st.cache_data(show_spinner="Comparing the detectors ...", max_entries=128)
def _compared(
    path: str, key: str, _workspace: Workspace, _among: Mapping[str, Contender], _set: OutlierSet
) -> list[Comparison]:
    return compare(_among, _workspace.calibration_scores, _set.scores, _set.name)


def show_scores(
    workspace: Workspace, compared: Sequence[Comparison], chosen: OutlierSet, state: Session
) -> None:
    """One detector's scores of known images and of the set."""
    titles = {c.detector: c.contender.title for c in compared}
    st.markdown("#### Scores of one detector")
    left, right = st.columns([2, 5], gap="medium")
    with left:
        name = st.selectbox(
            "Detector",
            list(titles),
            index=list(titles).index(deciding(compared).detector),
            format_func=titles.__getitem__,
            key=DETECTOR_KEY,
            persist_state="session",
            on_change=partial(_follow, state),
        )
        info, conformal = workspace.panel.infos[name], workspace.conformal[name]
        st.markdown(f"*{info.question}*")
        threshold = conformal.threshold(LEVEL)
        flagged = int((conformal.p_values(chosen.scores[name]) <= LEVEL).sum())
        if threshold == float("inf"):
            st.markdown(
                f"{len(conformal):,} calibration images are too few to flag any at {LEVEL:.0%}."
            )
        else:
            st.markdown(
                f"**{flagged / len(chosen):.0%} of these images are flagged** "
                f"({flagged:,} of {len(chosen):,}) where {LEVEL:.0%} of known images are."
            )
        st.caption(f"{info.paper.authors}, {info.paper.venue} {info.paper.year}")
    right.plotly_chart(
        two_histograms(workspace.calibration_scores[name], chosen.scores[name], threshold),
        key="two-histograms",
        config={"displayModeBar": False},
        alt="Scores of known images and of the set, in shares of each",
    )


def show_agreement(workspace: Workspace, chosen: OutlierSet) -> None:
    """Which detectors put the same images in the same order."""
    st.markdown("#### Who agrees with whom")
    known, unknown = "Known images", "This set"
    images = st.segmented_control(
        "In what order they put",
        [known, unknown] if len(chosen) > 2 else [known],
        default=known,
        required=True,
        key="agreement",
        persist_state="session",
    )
    found = _agreement(
        workspace.key,
        "" if images == known else chosen.key,
        workspace.calibration_scores if images == known else chosen.scores,
    )
    st.caption(
        "Spearman's rank correlation. Orange: both find the same images odd, so that one of them "
        "would do. White: they look at different things, and are worth combining."
    )
    infos = workspace.panel.infos
    st.plotly_chart(
        agreement_map(found.correlation, [infos[name].title for name in found.names]),
        key="agreement-map",
        config={"displayModeBar": False},
        alt="Rank correlation between detectors",
    )


@st.cache_data(show_spinner=False, max_entries=128)
def _agreement(path: str, key: str, _scores: Mapping[str, np.ndarray]) -> Agreement:
    return agreement(_scores)


def show_downloads(compared: Sequence[Comparison], chosen: OutlierSet) -> None:
    """The same records as the command line gives."""
    with st.container(horizontal=True, width="content", gap="xsmall"):
        for name, (label, suffix, mime) in _FILES.items():
            st.download_button(
                label,
                data=partial(WRITERS[name], compared),
                file_name=f"detectors-{chosen.key[:24]}.{suffix}",
                mime=mime,
                icon=":material/download:",
                on_click="ignore",
                key=f"download-{name}",
            )


def _follow(state: Session) -> None:
    state.steps += 1  # draws the table anew, with this detector selected
