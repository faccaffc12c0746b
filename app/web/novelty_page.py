"""The Novelty page: what the flagged images are, and whether they are a new class."""

from hashlib import sha256

import numpy as np
import streamlit as st

from app.discovery import FALSE_ALARM, LEVEL, Candidate, find_candidates, in_force
from app.inbox import identity
from app.inbox_contents import Stream
from app.inbox_tables import InboxError
from app.web.header import header
from app.web.inbox_pages import open_inbox
from app.web.novelty_candidates import show_candidate
from app.web.novelty_learned import show_learned
from app.workspace import Workspace
from ood.novelty import SMALLEST_GROUP

_SHOWN = 8


def show_inbox(workspace: Workspace, stream: Stream, taught: set[str]) -> None:
    """Candidates for new classes among what is neither dismissed nor named."""
    waiting = [
        row
        for row in range(len(stream))
        if not stream.dismissed[row] and stream.sha256[row] not in taught
    ]
    st.caption(
        f"{len(stream):,} flagged images of {stream.inspected:,} inspected ones are in the inbox; "
        f"{len(waiting):,} of them are neither named nor dismissed."
    )
    found = _candidates(workspace.key, _version(stream, taught), workspace, stream, waiting)
    if not waiting:
        st.success("All of them are named or dismissed.", icon=":material/check_circle:")
    elif not found:
        st.info(
            f"They form no group of {SMALLEST_GROUP} or more yet. Keep more flagged images.",
            icon=":material/hourglass_empty:",
        )
    for number, candidate in enumerate(found[:_SHOWN], start=1):
        show_candidate(workspace, stream, candidate, number)


@st.cache_data(max_entries=8, show_spinner="Looking for groups, and putting them to the test ...")
def _candidates(
    key: str, version: str, _workspace: Workspace, _stream: Stream, _waiting: list[int]
) -> list[Candidate]:
    return find_candidates(_workspace, _stream, np.array(_waiting, np.int64))


def _version(stream: Stream, taught: set[str]) -> str:
    """What caches know the inbox by: its images, what was inspected, and what was decided."""
    digest = sha256(stream.ids.tobytes() + stream.dismissed.tobytes())
    return f"{digest.hexdigest()} {stream.inspected} {sorted(taught)}"


with header() as workspace:
    pass
st.markdown("### Is it something new?")
st.caption(
    "Flagged images are collected here. Those that are alike form groups; a group is called new "
    f"only when later images, flagged at {LEVEL:.0%}, fall into its place more often than known "
    "images could: over everything that is ever collected here the chance of a false alarm is at "
    f"most {FALSE_ALARM:.0%}."
)
try:
    inbox = open_inbox()
    stream = inbox.stream(identity(workspace))
    classes = inbox.classes(identity(workspace))
except InboxError as error:
    st.error(str(error), icon=":material/error:")
    st.stop()
show_learned(workspace, inbox, classes)
if not len(stream):
    st.info(
        "The inbox is empty. On *Inspect*, drop a batch of images and press *Keep the flagged "
        "ones*.",
        icon=":material/inbox:",
    )
    st.stop()
show_inbox(workspace, stream, {sha256 for named in in_force(classes) for sha256 in named.sha256})
