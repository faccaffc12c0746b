"""What an edit of the training set does to every part of the calibration images."""

import numpy as np
import pandas as pd
import streamlit as st

from app.counterfactual import Edit, Refitted, refit
from app.slices import slice_of, slices
from app.web.state import session
from app.workspace import Workspace
from explain.head import RefitDidNotConverge, RefittedHead


def current_edit(workspace: Workspace) -> Edit:
    """What this person has left out of this workspace."""
    return session().edits.get(workspace.key, [Edit()])[-1]


def change(workspace: Workspace, edit: Edit) -> None:
    """Another edit on top of the ones before."""
    history = session().edits.setdefault(workspace.key, [Edit()])
    if edit != history[-1]:
        history.append(edit)


def leave_out(workspace: Workspace, rows: np.ndarray) -> None:
    """Leave more training images out."""
    change(workspace, current_edit(workspace).without(np.asarray(rows)))


def undo(workspace: Workspace) -> None:
    """As before the last change."""
    history = session().edits.get(workspace.key, [])
    if len(history) > 1:
        history.pop()


def show_edit_effect(workspace: Workspace) -> None:
    """The edit that is being tried, and what it does; nothing without one."""
    edit = current_edit(workspace)
    if not edit or workspace.refits is None:
        return
    left_out, changed = len(edit.removed), len(edit.relabelled)
    told = [f"{left_out:,} left out"] * bool(left_out) + [f"{changed:,} relabelled"] * bool(changed)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.markdown(f"#### Tried: {' and '.join(told)}", width="content")
        st.button("Undo", key="undo-edit", icon=":material/undo:", on_click=undo, args=(workspace,))
    try:
        refitted = refitted_without(workspace.key, edit, workspace)
    except RefitDidNotConverge as error:
        st.error(str(error), icon=":material/error:")
        return
    st.caption(
        "The last layer, refitted in truth. On Inspect the same images stay left out. Loss is how "
        "much its mistakes weigh: a minus is better."
    )
    show_slice_effects(workspace, refitted)


def show_slice_effects(workspace: Workspace, refitted: Refitted) -> None:
    """A table: slice by slice, the effect as influence predicts it beside the actual one."""
    st.dataframe(
        slice_effects(workspace, refitted, session().metadata.get(workspace.key, {})),
        hide_index=True,
        height="content",
        column_config={
            name: st.column_config.NumberColumn(format=form)
            for name, form in (
                ("Accuracy before", "percent"),
                ("Accuracy after", "percent"),
                ("Loss: predicted", "%+.5f"),
                ("Loss: actual", "%+.5f"),
            )
        },
        alt="Effect on each part of the calibration images",
    )


def slice_effects(
    workspace: Workspace, refitted: Refitted, metadata: dict[str, np.ndarray]
) -> pd.DataFrame:
    """One row a slice."""
    assert workspace.refits is not None  # asked only where there are refits
    head = workspace.refits.head
    after, predicted = (
        RefittedHead(theta, head.l2, 0.0) for theta in (refitted.theta, refitted.predicted)
    )
    records = []
    for name, rows in slices(workspace, metadata).items():
        on = slice_of(workspace, rows)
        loss = on.loss(head)
        records.append(
            {
                "On": name,
                "Images": len(on),
                "Accuracy before": on.accuracy(head),
                "Accuracy after": on.accuracy(after),
                "Loss: predicted": on.loss(predicted) - loss,
                "Loss: actual": on.loss(after) - loss,
            }
        )
    return pd.DataFrame(records)


@st.cache_data(max_entries=256, show_spinner="Refitting ...")
def refitted_without(key: str, edit: Edit, _workspace: Workspace) -> Refitted:
    """The refit of an edit, once for everybody."""
    return refit(_workspace, edit)
