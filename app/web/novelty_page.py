"""The Novelty page: what the flagged images are, and whether they are a new class."""

import streamlit as st

from app.discovery import Grouping, in_force
from app.inbox import identity
from app.inbox_contents import Stream
from app.inbox_tables import InboxError
from app.new_class_replay import FALSE_ALARM, LEVEL
from app.web.header import header
from app.web.inbox_pages import open_inbox
from app.web.novelty_candidates import show_candidate
from app.web.novelty_groups import candidates, waiting_rows
from app.web.novelty_keeping import show_keeping
from app.web.novelty_learned import show_learned
from app.workspace import Workspace
from ood.novelty import SMALLEST_GROUP

_SHOWN = 8


def show_inbox(workspace: Workspace, stream: Stream, taught: set[str]) -> None:
    """Candidates for new classes among what is neither dismissed nor named."""
    rows = waiting_rows(stream, taught)
    st.caption(
        f"{len(stream):,} flagged images of {stream.inspected:,} inspected ones are in the inbox; "
        f"{len(rows):,} of them are neither named nor dismissed."
    )
    if not len(rows):
        st.success("All of them are named or dismissed.", icon=":material/check_circle:")
        return
    grouping = st.segmented_control(
        "Make groups of",
        list(Grouping),
        default=Grouping.ALL,
        required=True,
        help="All of them: every flagged image joins a group (k-means), and groups of fewer than "
        f"{SMALLEST_GROUP} are not shown. Only what lies close: images unlike all others join "
        "none (HDBSCAN).",
    )
    found = candidates(workspace, stream, rows, grouping)
    _show_layer(workspace)
    if not found:
        st.info(
            f"They form no group of {SMALLEST_GROUP} or more yet. Keep more flagged images.",
            icon=":material/hourglass_empty:",
        )
    for number, candidate in enumerate(found[:_SHOWN], start=1):
        show_candidate(workspace, stream, candidate, number)
    if len(found) > _SHOWN:
        st.caption(f"The first {_SHOWN} of {len(found):,} groups are shown.")


def _show_layer(workspace: Workspace) -> None:
    chosen = workspace.novelty_layer
    if not len(chosen.scores):
        return
    if chosen.stage < 0:
        where = (
            "the network's penultimate layer; no earlier one finds hidden known classes clearly "
            "better."
        )
    else:
        where = (
            f"stage {chosen.stage + 1} of the network, which finds hidden known classes clearly "
            f"better than the last one (F1 {chosen.scores[chosen.stage]:.2f}, "
            f"{chosen.scores[-1]:.2f})."
        )
    st.caption(f"Alike is what looks alike at {where}")


with header() as workspace:
    pass
st.markdown("### Is it something new?")
st.caption(
    "Flagged images are collected here. Those that are alike form groups; a group is called new "
    f"only when later images, flagged at {LEVEL:.0%}, fall into its place more often than known "
    "images could. While all are of known classes, mixed as the calibration images are, and are "
    "collected whatever they show, the chance that any group is ever called new is at most "
    f"{FALSE_ALARM:.0%}, from the last deletion on."
)
try:
    inbox = open_inbox()
    stream = inbox.stream(identity(workspace))
    classes = inbox.classes(identity(workspace))
except InboxError as error:
    st.error(str(error), icon=":material/error:")
    st.stop()
show_learned(workspace, inbox, classes)
if len(stream):
    taught = {sha256 for named in in_force(classes) for sha256 in named.sha256}
    show_inbox(workspace, stream, taught)
else:
    st.info(
        "The inbox is empty. On *Inspect*, drop a batch of images and press *Keep the flagged "
        "ones*.",
        icon=":material/inbox:",
    )
show_keeping(workspace, inbox, stream)
