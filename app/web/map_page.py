"""The Map page: everything that the workspace knows of, on one plane."""

import numpy as np
import streamlit as st

from app.inbox_tables import InboxError
from app.map_layers import Colour, Layer
from app.map_selection import Origins
from app.new_class_replay import LEVEL
from app.web.header import header
from app.web.map_chart import drawn_line, show_chart
from app.web.map_data import Waiting, all_dots, drawing, group_numbers, quality
from app.web.map_hover import show_hover
from app.web.state import session
from app.web.wording import plain
from app.workspace import Workspace
from explain.map_quality import MapQuality


def quality_line(found: MapQuality) -> str:
    """How far to trust the map, as Markdown."""
    return (
        f"**Trustworthiness {found.trustworthiness:.2f}, continuity {found.continuity:.2f}** (1 is "
        f"perfect, 0.5 is chance; on {found.images:,} training images, the {found.neighbours} "
        "nearest of each among them). The first falls where images lie together that the model "
        "tells apart, the second where the map tears apart what it finds alike."
    )


def choose() -> tuple[list[Layer], Colour, bool]:
    """Layers, what colour says, and whether there are pictures on the map."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        layers = st.pills(
            "Layers", list(Layer), selection_mode="multi", key="map-layers",
            default=[layer for layer in Layer if layer is not Layer.GROUPS],
        )  # fmt: skip
        colour = st.segmented_control(
            "Colour by", list(Colour), default=Colour.CLASS, required=True, key="map-colour"
        )
        pictures = st.toggle("Pictures on the map", key="map-pictures")
    return list(layers), colour, pictures


def read_inbox(workspace: Workspace) -> Waiting | None:
    """The inbox; None, said on the page, where it cannot be read."""
    try:
        return Waiting.read(workspace)
    except InboxError as error:
        st.warning(f"The map is without the inbox: {error}", icon=":material/warning:")
        return None


with header() as workspace:
    pass
st.markdown("### Where the images lie")
st.caption(
    "Each dot is an image; images that the model finds alike lie together. Layers can be switched "
    f"on and off. Flagged means: at {LEVEL:.0%}, so that this share of normal images is flagged "
    "too."
)
if learned := st.session_state.pop("map-learned", ""):
    st.success(
        f"**{plain(learned)}** is learned. *Inspect* recognises it now; *Novelty* says what it "
        "changed and can undo it.",
        icon=":material/school:",
    )
layers, colour, pictures = choose()
job = session().job
batch = job.batch if job is not None else None
inspection = batch.inspection if batch is not None else None
waiting = read_inbox(workspace)
groups = Layer.GROUPS in layers or colour is Colour.GROUP
version = " ".join(
    [workspace.key, batch.digest if batch else "", waiting.version if waiting else "", str(groups)]
)
found = np.empty(0, int)
if groups and waiting is not None and len(waiting.rows):
    found = group_numbers(workspace, waiting)
dots = all_dots(version, workspace, batch, waiting, found)
origins = Origins(
    workspace,
    batch.images if batch is not None else (),
    inspection,
    waiting.stream if waiting is not None else None,
)
picture = drawing(origins, dots, layers, colour, pictures=pictures, version=version)
missing = [] if layers else ["Switch a layer on."]
if inspection is None:
    missing.append("None of yours: drop some on *Inspect*.")
if waiting is not None and not len(waiting.rows):
    missing.append("Nothing waits in the inbox.")
elif groups and waiting is not None and not (dots.groups >= 0).any():
    missing.append("The inbox forms no group yet.")
st.caption(" ".join([drawn_line(picture), *missing]))
show_chart(origins, dots, picture, batch)
show_hover(origins, dots, picture.visible)
st.markdown("#### What a map cannot tell")
if (measured := quality(workspace.key, workspace)) is not None:
    st.markdown(quality_line(measured))
st.caption(
    "How far groups lie from each other, how large they are and how empty the space between them "
    "is means nothing here. An image unlike all others still gets a place beside its nearest "
    "training images. No verdict, no group and no new class is taken from the map."
)
