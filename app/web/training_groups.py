"""Groups of training images that hurt a slice."""

import numpy as np
import streamlit as st

from app.audit import Audit
from app.triage import Action, Mark, Triage
from app.web.group_values import show_group_values
from app.web.pictures import gallery
from app.web.slice_choice import choose_slice, effects_on
from app.web.wording import plain
from app.workspace import Workspace
from explain.effects import GroupEffect, Slice, group_effects, refit_without_group
from explain.head import RefitDidNotConverge

GROUPS_SHOWN = 5
_PICTURES = 10


def show_groups(workspace: Workspace, audit: Audit, triage: Triage) -> None:
    """Groups of alike training images, the most hurtful for a chosen slice first."""
    if workspace.refits is None:
        st.info(
            "The last layer of this model is too large to be refitted, or found no optimum, so "
            "groups cannot be weighed.",
            icon=":material/info:",
        )
        return
    st.caption(
        "Training images of one class that are alike to the model, taken together: what leaving "
        "the whole group out does to the calibration images. Predicted by influence; press the "
        "button to refit without it, in truth. A group that hurts one class may help another."
    )
    chosen, on = choose_slice(workspace)
    groups = _effects(workspace.key, on.digest, on, workspace, audit)
    hurtful = [group for group in groups if group.predicted < 0][:GROUPS_SHOWN]
    if not hurtful:
        st.success("No group hurts these images.", icon=":material/check_circle:")
    for number, group in enumerate(hurtful, start=1):
        _show_group(workspace, triage, on, group, number, chosen)
    show_group_values(workspace, hurtful, on, workspace.classes)


def _show_group(
    workspace: Workspace, triage: Triage, on: Slice, group: GroupEffect, number: int, chosen: str
) -> None:
    labels, classes = workspace.bank.images.labels, workspace.classes
    share = -group.predicted / on.loss(workspace.refits.head)  # type: ignore[union-attr]
    st.markdown(
        f"**Group {number}**: {len(group.rows):,} images labelled {plain(classes[group.label])}. "
        f"Without them the mistakes on these images would weigh {share:.1%} less, by prediction."
    )
    shown = group.rows[:_PICTURES]
    gallery(workspace, shown, [plain(classes[labels[row]]) for row in shown], side=72)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if st.button("Refit without it", key=f"group-{number}", icon=":material/science:"):
            _show_truth(workspace, group, on)
        if st.button(
            "Mark the undecided for removal", key=f"remove-{number}", icon=":material/close:"
        ):
            try:
                decided = triage.marks()
                for image in (workspace.training_ids[row] for row in group.rows):
                    if image not in decided:
                        triage.mark(Mark(image, Action.REMOVE, note=f"group that hurts {chosen}"))
            except OSError as error:
                st.error(f"Not all could be marked: {error}", icon=":material/error:")
            else:
                st.rerun()


def _show_truth(workspace: Workspace, group: GroupEffect, on: Slice) -> None:
    assert workspace.refits is not None  # groups are shown only where there are refits
    try:
        loss, accuracy = refit_without_group(workspace.refits, group, on)
    except RefitDidNotConverge as error:
        st.error(str(error), icon=":material/error:")
        return
    st.markdown(
        f"In truth: loss {loss:+.4f} (predicted {group.predicted:+.4f}), accuracy "
        f"{100 * accuracy:+.2f} points on {len(on):,} images."
    )


@st.cache_data(max_entries=64, show_spinner="Weighing groups ...")
def _effects(
    key: str, digest: str, _on: Slice, _workspace: Workspace, _audit: Audit
) -> list[GroupEffect]:
    effects = effects_on(key, digest, _on, _workspace)
    return group_effects(effects, _audit.groups, np.asarray(_workspace.bank.images.labels))
