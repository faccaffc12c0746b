"""A group of flagged images, to be looked through, named and learned, or dismissed."""

from hashlib import sha256

import numpy as np
import pandas as pd
import streamlit as st

from app.artefacts import artefacts, normal_statistics
from app.discovery import Candidate, name_class
from app.inbox_contents import Stream
from app.inbox_tables import InboxError
from app.web.inbox_pages import open_inbox
from app.web.pictures import data_url
from app.workspace import Workspace
from ood.learned_class import FEWEST

LISTED = 200
_SIDE = 56


def show_naming(workspace: Workspace, stream: Stream, candidate: Candidate) -> None:
    """The pictures of a group with a tick each, a name, and what to do with them."""
    rows = candidate.rows[:LISTED]
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
    key = f"candidate-{sha256(stream.ids[candidate.rows].tobytes()).hexdigest()[:16]}"
    ticked = _ticked(workspace, stream, rows, pictures, key)
    chosen = rows[ticked]
    if len(rows) < len(candidate.rows):
        rest = st.checkbox(
            f"And the {len(candidate.rows) - len(rows):,} that are not listed", key=f"{key}-rest"
        )
        chosen = np.concatenate([chosen, candidate.rows[LISTED:] if rest else chosen[:0]])
    _act(workspace, stream, chosen, key, candidate.known_as)


def _ticked(
    workspace: Workspace, stream: Stream, rows: np.ndarray, pictures: dict[int, bytes], key: str
) -> np.ndarray:
    """(n,) bool: the rows whose ticks were left."""
    ids = stream.ids[rows].tolist()
    table = pd.DataFrame(
        {
            "Image": [data_url(pictures[known]) if known in pictures else "" for known in ids],
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
    ticks: np.ndarray = edited["Belongs"].to_numpy(bool)
    return ticks


def _act(workspace: Workspace, stream: Stream, chosen: np.ndarray, key: str, known_as: str) -> None:
    """Name and learn the chosen rows, or dismiss them."""
    different = len(np.unique(stream.sha256[chosen]))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.text_input("What is it?", value=known_as, key=f"{key}-name", max_chars=64,
                             width=240, placeholder="Name of the class")  # fmt: skip
        learn = st.button(
            f"Learn these {len(chosen):,}", key=f"{key}-learn", icon=":material/school:",
            disabled=not name.strip() or (different < FEWEST and not known_as),
        )  # fmt: skip
        dismiss = st.button(
            "Nothing new",
            key=f"{key}-dismiss",
            icon=":material/visibility_off:",
            help="Takes the ticked images out of the groups; they stay in the inbox.",
        )
    try:
        if learn:
            name_class(open_inbox(), workspace, name, stream.ids[chosen])
        elif dismiss:
            open_inbox().dismiss(stream.ids[chosen])
    except (InboxError, ValueError) as error:
        st.error(str(error), icon=":material/error:")
    else:
        if learn or dismiss:
            st.rerun(scope="app")


@st.cache_data(max_entries=8, show_spinner=False)
def _normal(key: str, _workspace: Workspace) -> np.ndarray:
    return normal_statistics(_workspace)
