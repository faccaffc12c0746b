"""Why, in images: neighbours, influences, where it looked."""

import numpy as np
import streamlit as st

from app.records import NEIGHBOURS_SHOWN
from app.uploads import UploadedImage
from app.web.pictures import attribution_overlay, gallery
from app.web.wording import plain
from app.workspace import Inspection, Workspace
from explain.influence import Influences
from ood.decision import Decision

OVERLAY_SIDE = 280


def show_neighbours(
    workspace: Workspace, inspection: Inspection, row: int, decision: Decision, *, numbers: bool
) -> None:
    """The training images that look most alike to the model."""
    found = inspection.activations.neighbours
    assert found is not None  # an Inspection's activations are located
    rows = found.rows[row, :NEIGHBOURS_SHOWN]
    labels = [workspace.classes[workspace.bank.images.labels[r]] for r in rows]
    flagged = "The nearest that it has seen"
    st.markdown(f"#### {flagged if decision.flagged else 'It has seen these before'}")
    st.caption(
        "The training images that look most alike to the model. Alike is not a cause: "
        "it need not have learned its answer from them."
    )
    captions = [plain(label) for label in labels]
    if numbers:
        distances = found.distances[row, :NEIGHBOURS_SHOWN]
        captions = [
            f"{name}  \n{distance:.3f}" for name, distance in zip(captions, distances, strict=True)
        ]
    gallery(workspace, rows, captions)


def show_influences(
    workspace: Workspace,
    inspection: Inspection,
    row: int,
    influences: Influences | None,
    *,
    numbers: bool,
) -> None:
    """The training images that made the answer, and those that spoke against it."""
    if influences is None or workspace.influence is None:
        st.caption(
            ":material/info: For this model there are no exact influences (its last layer is too "
            "large, or could not be refitted), so the training images that taught it this answer "
            "are not shown."
        )
        return
    target, against = workspace.classes[influences.target], workspace.classes[influences.against]
    refitted = workspace.influence.predict(inspection.activations.features[row])
    if refitted != influences.target:
        st.caption(
            ":material/info: The refitted last layer, on which influences are exact, would say "
            f"{plain(workspace.classes[refitted])} here: read these two rows with care."
        )
    columns = st.columns(2, gap="large")
    for column, title, meaning, rows, values in (
        (
            columns[0],
            "These taught it to say so",
            f"Without them it would lean less to {plain(target)} and more to {plain(against)}: "
            "predicted for a refit of its last layer, each image against its own weight overall.",
            influences.helpful,
            influences.helpful_influence,
        ),
        (
            columns[1],
            "These spoke against it",
            f"Without them it would lean even more to {plain(target)}. Often odd or wrongly "
            "labelled images; not proof that they are wrong.",
            influences.harmful,
            influences.harmful_influence,
        ),
    ):
        with column:
            st.markdown(f"#### {title}")
            st.caption(meaning)
            labels = [plain(workspace.classes[workspace.bank.images.labels[r]]) for r in rows]
            if numbers:
                labels = [f"{n}  \n{v:+.4f}" for n, v in zip(labels, values, strict=True)]
            if len(rows):
                gallery(workspace, rows, labels)
            else:
                st.caption("None.")
    if numbers:
        st.caption(
            f"Numbers: predicted change of the margin, logit of {plain(target)} minus logit of "
            f"{plain(against)}, if that one image were left out and the last layer refitted."
        )


def show_attribution(workspace: Workspace, image: UploadedImage, decision: Decision) -> None:
    """Where in the image the answer comes from."""
    name = plain(workspace.classes[decision.predicted])
    st.markdown("#### Where it looked")
    st.caption(
        f"Orange spoke for {name}, blue against it, compared with a black image. It shows what the "
        "answer rests on, not whether that makes sense."
    )
    overlay = _overlay(workspace.key, image.sha256, decision.predicted, workspace, image.pixels)
    st.image(overlay, width=OVERLAY_SIDE, alt=f"Where the model looked for {name}")


@st.cache_data(max_entries=512, show_spinner="Looking where it looked ...")
def _overlay(
    path: str, sha256: str, target: int, _workspace: Workspace, _pixels: np.ndarray
) -> bytes:
    attribution = _workspace.attribute(_pixels, target)
    return attribution_overlay(_pixels, attribution, OVERLAY_SIDE)
