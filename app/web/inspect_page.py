"""The Inspect page: images in, verdicts with their reasons out."""

import os

import numpy as np
import streamlit as st

from app.locations import DEMO, workspace_names, workspace_path
from app.manifest import WorkspaceError
from app.web.batch import (
    selected_row,
    show_discoveries,
    show_downloads,
    show_refused,
    show_steps,
    show_summary,
    show_table,
)
from app.web.inputs import show_inputs
from app.web.job import Batch
from app.web.map_view import flagged_clusters, show_clusters, show_map
from app.web.reasons import show_attribution, show_influences, show_neighbours
from app.web.resources import open_workspace
from app.web.state import session
from app.web.verdict import show_verdict
from app.web.wording import level_sentence, literal, plain
from app.workspace import Workspace
from ood.conformal import realised_interval
from ood.decision import can_decide


def choose_workspace() -> Workspace:
    """The workspace named at start, or another one picked here."""
    started_with = os.environ.get("KINDRED_WORKSPACE", DEMO)
    names = list(dict.fromkeys([started_with, *workspace_names()]))
    name = started_with
    if len(names) > 1:
        name = st.selectbox(
            "Workspace", names, label_visibility="collapsed", key="workspace",
            bind="query-params", on_change=session().clear,
        )  # fmt: skip
    try:
        return open_workspace(str(workspace_path(name)))
    except WorkspaceError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()


def choose_level(workspace: Workspace) -> float:
    """The level, and what it does to normal images."""
    left, right = st.columns([2, 3], gap="large", vertical_alignment="center")
    percent = left.slider(
        "Share of normal images that may be flagged",
        0.5, 20.0, 5.0, 0.5, format="%.1f%%", key="level", bind="query-params",
    )  # fmt: skip
    level = percent / 100
    detector = workspace.manifest.detector
    conformal = workspace.conformal[detector]
    if not can_decide(level, len(conformal)):
        right.warning(
            f"{len(conformal):,} calibration images are too few to flag anything at {level:.1%}.",
            icon=":material/warning:",
        )
        return level
    flagged = int((conformal.scores > conformal.threshold(level)).sum())
    realised = realised_interval(level, len(conformal))
    right.caption(level_sentence(level, flagged, len(conformal), realised))
    return level


@st.fragment(run_every="500ms")
def show_progress() -> None:
    """How far the batch is; the page is drawn anew at its end."""
    job = session().job
    if job is None or not job.running:
        st.rerun()
    else:
        job.watch()
        share = min(job.done / max(job.total, 1), 1.0)
        st.progress(share, f"Inspecting: {job.done:,} of {job.total:,}")


def show_results(workspace: Workspace, batch: Batch, level: float, numbers: bool) -> None:
    """Everything that is said of a batch, or of one image."""
    inspection = batch.inspection
    if inspection is None:
        for refused in batch.refused[:20]:
            st.error(f"{literal(refused.name)} {plain(refused.reason)}", icon=":material/block:")
        if not batch.refused:
            st.info("There were no images in there.", icon=":material/image_not_supported:")
        return
    decisions = workspace.decide(inspection, level)
    detector = workspace.manifest.detector
    several = len(batch.images) > 1
    clusters = flagged_clusters(workspace, batch, decisions, level)
    if several or batch.refused:
        with st.container(
            horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
        ):
            show_summary(batch, decisions)
            show_downloads(workspace, batch, decisions)
    if batch.refused:
        show_refused(batch.refused)
    if several:
        size = len(workspace.conformal[detector])
        discoveries = show_discoveries(batch, inspection.p_values[detector], size)
        order = show_table(workspace, batch, decisions, discoveries, clusters)
        show_steps(batch, order)
    row = selected_row(order) if several else 0
    image, decision = batch.images[row], decisions[row]
    show_verdict(workspace, image, inspection, row, decision, numbers=numbers)
    show_neighbours(workspace, inspection, row, decision, numbers=numbers)
    show_influences(workspace, inspection, row, numbers=numbers)
    looked, sits = st.columns([2, 5], gap="medium")
    with sits:
        show_map(workspace, level, batch, decisions, clusters)
    if several:
        show_clusters(batch, decisions, clusters)
    elif not batch.refused:
        show_downloads(workspace, batch, decisions)
    with looked:  # last: the slowest part must not keep the others waiting
        show_attribution(workspace, image, decision)


with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
    st.header("Kindred", anchor=False, width="content")
    with st.container(horizontal=True, width="content", vertical_alignment="center", gap="medium"):
        workspace = choose_workspace()
        on_gpu = workspace.classifier.device.type == "cuda"
        st.badge(
            "GPU" if on_gpu else "CPU",
            icon=":material/memory:",
            color="gray",
            help="The device that the classifier runs on.",
        )
        numbers = st.toggle("Show the numbers", key="numbers", bind="query-params")
st.caption(plain(workspace.manifest.about or workspace.manifest.name))
show_inputs(workspace)
st.divider()
level = choose_level(workspace)
job = session().job
if job is None:
    show_map(workspace, level, None, [], np.empty(0, int))
elif job.error:
    st.error(job.error, icon=":material/error:")
elif job.batch is None:
    show_progress()
else:
    show_results(workspace, job.batch, level, numbers)
