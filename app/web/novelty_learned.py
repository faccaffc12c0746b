"""Classes that were named: what learning them did, undo, and files to take away."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import streamlit as st
from safetensors.numpy import save

from app.discovery import in_force, labelled_set, learn, named_images
from app.inbox import Inbox
from app.inbox_contents import NewClass
from app.inbox_tables import InboxError
from app.learning import LearningReport, report
from app.web.inbox_pages import members
from app.web.wording import plain
from app.workspace import Workspace


def show_learned(workspace: Workspace, inbox: Inbox, classes: Sequence[NewClass]) -> None:
    """One line a class in force, then the extended last layer to take away."""
    named = in_force(classes)
    if not named:
        return
    st.markdown("#### Learned here")
    for number, one in enumerate(named):
        found = _report(workspace.key, members(named[: number + 1]), workspace, named[: number + 1])
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.markdown(learned_sentence(one.name, found), width="stretch")
            st.download_button(
                "Its images", data=partial(labelled_set, inbox, one),
                file_name="named-images.zip", icon=":material/download:", on_click="ignore",
                key=f"images-{one.id}",
            )  # fmt: skip
            st.button(
                "Undo", key=f"undo-class-{one.id}", icon=":material/undo:", on_click=_undo,
                args=(inbox, one.id),
            )  # fmt: skip
    st.caption(
        "The network stays as it is: its last layer has gained a row for each, learned beside the "
        "training images. *Inspect* now recognises them."
    )
    st.download_button(
        "Extended last layer", data=lambda: save(learn(workspace, named).export()),
        file_name="extended-head.safetensors", icon=":material/download:", on_click="ignore",
    )  # fmt: skip
    if failed := st.session_state.pop("learned-failed", ""):
        st.error(failed, icon=":material/error:")


def learned_sentence(name: str, found: LearningReport) -> str:
    """What learning a class did, as Markdown."""
    change = 100 * (found.after - found.before)
    own = (
        f" Of its images {found.own:.0%} are known when they are left out of the learning."
        if np.isfinite(found.own)
        else " It has too few images to tell how well it is known."
    )
    return (
        f"**{plain(name)}**, from {found.images:,} images.{own} The known classes: "
        f"{found.before:.2%} of calibration images right before, {found.after:.2%} after "
        f"({change:+.2f} points)."
    )


@st.cache_data(max_entries=32, show_spinner="Learning the class ...")
def _report(
    key: str,
    numbers: tuple[tuple[int, int], ...],
    _workspace: Workspace,
    _classes: Sequence[NewClass],
) -> LearningReport:
    return report(_workspace, named_images(_classes), learn(_workspace, _classes))


def _undo(inbox: Inbox, number: int) -> None:
    try:
        inbox.undo_class(number)
    except InboxError as error:
        st.session_state["learned-failed"] = str(error)
