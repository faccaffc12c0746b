"""Training images picked on the map, to be looked through one by one."""

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from app.audit import Audit
from app.map_selection import inside
from app.web.charts import MAP_POINTS, map_figure
from app.workspace import Workspace

_NOTHING = np.empty((0, 2))


def show_training_map(workspace: Workspace, audit: Audit, label: int | None) -> np.ndarray:
    """Rows that were drawn around, those with the most doubtful labels first; of one class."""
    st.caption(
        f"Each dot is a training image, {min(MAP_POINTS, len(workspace.bank.images)):,} of "
        f"{len(workspace.bank.images):,} are drawn; images that the model finds alike lie "
        "together. Crosses may be labelled wrongly. Draw around some to look through all that lie "
        "there."
    )
    event = st.plotly_chart(
        _figure(workspace.key, workspace, audit),
        key="training-map",
        on_select="rerun",
        selection_mode=("box", "lasso"),
        config={"displaylogo": False, "scrollZoom": True},
        alt="Map of the training images by class, doubtful ones crossed",
    )
    rows = inside(event["selection"], workspace.coordinates)
    if label is not None:
        rows = rows[np.asarray(workspace.bank.images.labels)[rows] == label]
    return rows[np.argsort(-audit.suspicion[rows], kind="stable")]


# The very same object on every rerun, or the selection is lost; see app.web.map_view.
@st.cache_resource(max_entries=8, show_spinner=False)
def _figure(key: str, _workspace: Workspace, _audit: Audit) -> go.Figure:
    labels, coordinates = np.asarray(_workspace.bank.images.labels), _workspace.coordinates
    figure = map_figure(
        coordinates, labels, _workspace.classes, _NOTHING, _NOTHING, [], [], np.empty(0, int)
    )
    rows = np.flatnonzero(_audit.flagged)
    figure.add_scattergl(
        x=coordinates[rows, 0], y=coordinates[rows, 1], mode="markers",
        name="may be labelled wrongly", customdata=[["train", int(row)] for row in rows],
        marker={"size": 7, "symbol": "x-thin", "line": {"width": 1.5, "color": "#0f172a"}},
        hoverinfo="skip",
    )  # fmt: skip
    return figure
