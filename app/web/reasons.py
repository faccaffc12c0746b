"""Why, in images: neighbours, influences, where it looked."""

import numpy as np
import streamlit as st

from app.inspection import Inspection
from app.records import NEIGHBOURS_SHOWN
from app.uploads import UploadedImage
from app.web.pictures import attribution_overlay, gallery
from app.web.wording import plain
from app.workspace import Workspace
from explain.influence import HeadInfluence, Influences
from explain.kfac import KFACInfluence
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


def why_not(
    workspace: Workspace, inspection: Inspection, row: int, image: UploadedImage
) -> Influences | None:
    """Let a person choose the class that the answer is held against; the runner-up at first."""
    if workspace.influence is None or len(workspace.classes) < 2:
        return None
    target, *others = np.argsort(-inspection.activations.logits[row], kind="stable").tolist()
    against = st.selectbox(
        f"Why {plain(workspace.classes[target])}, and not ...",
        others,
        format_func=workspace.classes.__getitem__,
        key=f"why-not-{image.sha256}",
        width=320,
        help="The likeliest other answer first.",
    )
    return workspace.explain(inspection.activations, row, against)


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
            ":material/info: For this model there are no influences (its last layer could not be "
            "refitted), so the training images that taught it this answer are not shown."
        )
        return
    target, against = workspace.classes[influences.target], workspace.classes[influences.against]
    features = inspection.activations.features[row]
    refitted = workspace.influence.predict(features)
    if refitted != influences.target:
        st.caption(
            ":material/info: The refitted last layer, on which influences are exact, would say "
            f"{plain(workspace.classes[refitted])} here: read these two rows with care."
        )
    how = "predicted for a refit of its last layer"
    if isinstance(workspace.influence, KFACInfluence):
        how = "estimated, since its last layer is too large to be refitted"
    columns = st.columns(2, gap="large")
    for column, title, meaning, rows, values in (
        (
            columns[0],
            "These taught it to say so",
            f"Without them it would lean less to {plain(target)} and more to {plain(against)}: "
            f"{how}, each image against its own weight overall. Images to which the others give "
            "another label are not shown here.",
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
            captions = [_label(workspace, int(r)) for r in rows]
            if numbers:
                if isinstance(workspace.influence, HeadInfluence):  # sizes by a Newton step
                    values = workspace.influence.removal_effect(
                        rows, features, influences.target, influences.against
                    )
                captions = [f"{n}  \n{v:+.4f}" for n, v in zip(captions, values, strict=True)]
            if len(rows):
                gallery(workspace, rows, captions)
            else:
                st.caption("None.")
    if numbers:
        _show_strongest(workspace, features, influences)
        st.caption(
            f"Numbers: predicted change of the margin, logit of {plain(target)} minus logit of "
            f"{plain(against)}, if that one image were left out; {how}."
        )


def _show_strongest(workspace: Workspace, features: np.ndarray, influences: Influences) -> None:
    """By influence alone: for people who debug."""
    assert workspace.influence is not None  # asked only where there are influences
    found = workspace.influence.strongest(
        features, influences.target, influences.against, len(influences.helpful) or 1
    )
    st.markdown("#### These moved this decision most, for it")
    st.caption(
        "By influence alone, not against each image's own weight overall: for debugging. A few odd "
        "or wrongly labelled images move very many decisions."
    )
    values = found.helpful_influence
    if isinstance(workspace.influence, HeadInfluence):
        values = workspace.influence.removal_effect(
            found.helpful, features, influences.target, influences.against
        )
    captions = [
        f"{_label(workspace, int(row))}  \n{value:+.4f}"
        for row, value in zip(found.helpful, values, strict=True)
    ]
    gallery(workspace, found.helpful, captions)


def _label(workspace: Workspace, row: int) -> str:
    """A training image's label, with a mark where it is probably wrong."""
    label = plain(workspace.classes[workspace.bank.images.labels[row]])
    audit = workspace.audit
    if audit is None or not audit.flagged[row]:
        return label
    return f"{label}  \n:orange[others say {plain(workspace.classes[audit.suggested[row]])}]"


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
