"""One group of flagged images: what speaks for a class, and its naming."""

import numpy as np
import pandas as pd
import streamlit as st

from app.artefacts import artefacts, normal_statistics
from app.discovery import Candidate, name_class
from app.inbox_contents import Stream
from app.inbox_tables import InboxError
from app.new_class_replay import FALSE_ALARM
from app.web.inbox_pages import open_inbox
from app.web.novelty_evidence import show_evidence
from app.web.pictures import data_url
from app.web.wording import plain
from app.workspace import Workspace
from ood.clusters import STABLE
from ood.learned_class import FEWEST

_LISTED = 200
_SIDE = 56


@st.fragment
def show_candidate(workspace: Workspace, stream: Stream, candidate: Candidate, number: int) -> None:
    """The sentence, the pictures with a tick each, a name, and a button."""
    with st.container(border=True):
        badge, words = verdict(candidate)
        icon = "new_releases" if candidate.proven else "hourglass_top"
        colour = "blue" if candidate.proven else "gray"
        st.badge(badge, icon=f":material/{icon}:", color=colour)  # type: ignore[arg-type]
        st.markdown(f"**Group {number}.** {words}")
        calls = pd.Series(stream.predicted[candidate.rows]).value_counts()
        said = ", ".join(f"{n:,} {plain(workspace.classes[c])}" for c, n in calls.head(3).items())
        st.caption(f"The classifier would have called them: {said}. {_firmness(candidate)}")
        show_evidence(workspace, candidate)
        _show_naming(workspace, stream, candidate)


def verdict(candidate: Candidate) -> tuple[str, str]:
    """A badge and a sentence, as Markdown."""
    count = f"{len(candidate.rows):,} images look alike"
    if candidate.proven:
        return (
            "New class",
            f"{count}. {candidate.core:,} of them, listed first, lie where later images fell too "
            f"often to be of the known classes: chance of a false alarm below {FALSE_ALARM:.0%}.",
        )
    return (
        "Not proven",
        f"{count}. Whether they are a class is not proven yet: known images that are odd in one "
        "way form groups too. Later images decide.",
    )


def _firmness(candidate: Candidate) -> str:
    if candidate.stability >= STABLE:
        return "The group stays the same when some of the images are left out."
    return "The group changes when some of the images are left out: look at it closely."


def _show_naming(workspace: Workspace, stream: Stream, candidate: Candidate) -> None:
    rows = candidate.rows[:_LISTED]
    ids = stream.ids[rows]
    try:
        pictures = open_inbox().pictures(ids)
    except InboxError as error:
        st.error(str(error), icon=":material/error:")
        return
    if pictures and (odd := artefacts(pictures.values(), _normal(workspace.key, workspace))):
        st.warning(
            f"They are much {' and '.join(odd)} than normal images: perhaps a fault of the camera "
            "or the file, not a class.",
            icon=":material/photo_camera:",
        )
    key = f"candidate-{int(ids[0])}-{len(ids)}"
    table = pd.DataFrame(
        {
            "Image": [data_url(pictures[int(i)]) if int(i) in pictures else "" for i in ids],
            "Belongs": True,
            "Called": [workspace.classes[stream.predicted[row]] for row in rows],
            "File": [stream.names[row] for row in rows],
        }
    )
    edited = st.data_editor(
        table,
        key=key,
        hide_index=True,
        height=min(38 + _SIDE * len(rows), 360),
        row_height=_SIDE,
        disabled=["Image", "Called", "File"],
        column_config={
            "Image": st.column_config.ImageColumn(width="small"),
            "Belongs": st.column_config.CheckboxColumn(help="Untick what is something else."),
        },
    )
    if len(rows) < len(candidate.rows):
        st.caption(f"The first {len(rows):,} of {len(candidate.rows):,} are listed.")
    ticked = edited["Belongs"].to_numpy(bool)
    chosen, different = ids[ticked], len(np.unique(stream.sha256[rows[ticked]]))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.text_input("What is it?", key=f"{key}-name", max_chars=64, width=240,
                             placeholder="Name of the class")  # fmt: skip
        learn = st.button(
            f"Learn these {len(chosen):,}", key=f"{key}-learn", icon=":material/school:",
            disabled=not name.strip() or different < FEWEST,
        )  # fmt: skip
        dismiss = st.button(
            "Nothing new",
            key=f"{key}-dismiss",
            icon=":material/visibility_off:",
            help="Takes the ticked images out of the groups; they stay in the inbox.",
        )
    try:
        if learn:
            name_class(open_inbox(), workspace, name, chosen)
        elif dismiss:
            open_inbox().dismiss(chosen)
    except (InboxError, ValueError) as error:
        st.error(str(error), icon=":material/error:")
    else:
        if learn or dismiss:
            st.rerun(scope="app")


@st.cache_data(max_entries=8, show_spinner=False)
def _normal(key: str, _workspace: Workspace) -> np.ndarray:
    return normal_statistics(_workspace)
