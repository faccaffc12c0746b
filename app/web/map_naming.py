"""Images of the inbox that were drawn around on the map, named as a new class."""

import numpy as np
import streamlit as st

from app.discovery import name_class
from app.inbox_tables import InboxError
from app.map_layers import Dots, Layer
from app.map_selection import Origins
from app.web.inbox_pages import open_inbox
from ood.learned_class import FEWEST


def show_naming(origins: Origins, dots: Dots, rows: np.ndarray) -> None:
    """A name and a button, where enough different images of the inbox are selected."""
    ids, different = inbox_items(origins, dots, rows)
    if different < FEWEST:
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.text_input("What are they?", key="map-name", max_chars=64, width=200,
                             placeholder="Name of the class")  # fmt: skip
        if not st.button(
            f"Learn these {different:,} of the inbox", icon=":material/school:", key="map-learn",
            disabled=not name.strip(),
        ):  # fmt: skip
            return
    try:
        name_class(open_inbox(), origins.workspace, name, ids)
    except (InboxError, ValueError) as error:
        st.error(str(error), icon=":material/error:")
        return
    st.session_state["map-learned"] = name.strip()
    st.rerun(scope="app")


def inbox_items(origins: Origins, dots: Dots, rows: np.ndarray) -> tuple[np.ndarray, int]:
    """(n,) ids of the inbox's items among these rows, and how many different pictures they are.

    An image that is in the batch too is drawn once, as one of the batch.
    """
    stream = origins.stream
    if stream is None:
        return np.empty(0, np.int64), 0
    own = dots.of_layer(Layer.UPLOADS)[rows]
    kept = dots.of_layer(Layer.INBOX)[rows]
    digests = np.union1d(
        np.array([origins.uploads[row].sha256 for row in dots.rows[rows[own]]], "U64"),
        stream.sha256[dots.rows[rows[kept]]],
    )
    chosen = np.isin(stream.sha256, digests) & ~stream.dismissed
    return stream.ids[chosen], len(np.unique(stream.sha256[chosen]))
