"""The chart of the Map page and what is drawn around on it."""

from typing import Any

import streamlit as st

from app.map_layers import Dots
from app.map_selection import Origins, inside
from app.new_class_replay import LEVEL
from app.web.job import Batch
from app.web.map_data import Drawing
from app.web.map_grid import show_selection, show_tags
from app.web.map_reasons import show_doubts, show_makers

CHART = "map-chart"
_DRAWN = "map-drawn"


@st.fragment
def show_chart(origins: Origins, dots: Dots, drawing: Drawing, batch: Batch | None) -> None:
    """The map, and below it the images that are drawn around."""
    left, right = st.columns([3, 2], gap="medium")
    with left.container(key=CHART):
        event = st.plotly_chart(
            drawing.figure,
            key=f"map-{drawing.key}",
            on_select="rerun",
            selection_mode=("box", "lasso"),
            config={"displaylogo": False, "scrollZoom": True},
            alt="Map of all images; those that the model finds alike lie together",
        )
    rows = drawing.visible[inside(_outline(event, drawing.key), dots.places[drawing.visible])]
    with right:
        if len(rows):
            show_selection(origins, dots, rows, batch, LEVEL)
        else:
            st.info(
                "Draw around some dots, mouse button held down, to see their images.",
                icon=":material/gesture:",
            )
        show_tags(origins.workspace.key)
    show_makers(origins, dots, rows)
    show_doubts(origins.workspace, dots, rows)


def _outline(event: Any, key: str) -> dict[str, Any]:
    """What is drawn around; kept when another colour or layer makes another figure.

    A new figure starts without a selection, which says nothing; on the same figure it says that
    the person has let go of it.
    """
    now = {kind: event["selection"].get(kind, []) for kind in ("lasso", "box")}
    before: tuple[str, dict[str, Any]] = st.session_state.get(_DRAWN, ("", {}))
    if not any(now.values()) and before[0] != key:
        return before[1]
    st.session_state[_DRAWN] = (key, now)
    return now


def drawn_line(drawing: Drawing) -> str:
    """How many of the dots are drawn, as Markdown."""
    if drawing.count == len(drawing.visible):
        return f"{drawing.count:,} dots."
    flagged = (
        f"all but {drawing.flagged_left_out:,} flagged ones"
        if drawing.flagged_left_out
        else "every flagged one"
    )
    return (
        f"{drawing.count:,} of {len(drawing.visible):,} dots drawn, {flagged} among them; a lasso "
        "takes all that lie inside, drawn or not."
    )
