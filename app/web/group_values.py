"""What groups of training images do together, shared among them fairly."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import pandas as pd
import streamlit as st

from app.workspace import Workspace
from explain.effects import GroupEffect, Slice
from explain.head import RefitDidNotConverge
from explain.semivalues import Ending, GroupValues, shapley_values

_SHOWN = "shared-blame"


def show_group_values(
    workspace: Workspace, groups: Sequence[GroupEffect], on: Slice, names: Sequence[str]
) -> None:
    """A button that shares the loss that groups add together among them; then a table.

    Args:
        workspace: with refits.
        groups: that hurt, in the order shown; with fewer than two there is nothing to share.
        on: the images that they hurt.
        names: of the classes.
    """
    if len(groups) < 2:
        return
    asked = _digest(workspace, groups, on)
    if st.button(
        "Share the blame fairly",
        key="share-blame",
        icon=":material/balance:",
        help="Refits without these groups in every combination, or in many, which takes seconds "
        "to minutes.",
    ):
        st.session_state[_SHOWN] = asked
    if st.session_state.get(_SHOWN) != asked:
        return
    try:
        found = _values(asked, workspace, groups, on)
    except RefitDidNotConverge as error:
        st.error(str(error), icon=":material/error:")
        return
    assert workspace.refits is not None
    loss = on.loss(workspace.refits.head)
    st.dataframe(
        _table(found, groups, loss, names),
        hide_index=True,
        width="content",
        alt="Each group's share of the loss that these groups add together",
    )
    st.caption(_caption(found, loss))


def _table(
    found: GroupValues, groups: Sequence[GroupEffect], loss: float, names: Sequence[str]
) -> pd.DataFrame:
    predicted = np.array([group.predicted for group in groups])
    errors = [f" ± {error / loss:.2%}" if error else "" for error in found.standard_errors]
    shares = [
        f"{-value / loss:+.2%}{error}" for value, error in zip(found.values, errors, strict=True)
    ]
    numbered = [f"{number}: {names[g.label]}" for number, g in enumerate(groups, start=1)]
    sizes = [len(group.rows) for group in groups]
    return pd.DataFrame(
        {
            "Group": [*numbered, "All of them"],
            "Images": [*sizes, sum(sizes)],
            "Share of the loss it adds": [*shares, f"{-found.together / loss:+.2%}"],
            "Predicted by influence": [f"{-p / loss:+.2%}" for p in [*predicted, predicted.sum()]],
        }
    )


def _caption(found: GroupValues, loss: float) -> str:
    count = f"{found.refits:,}"
    how = {
        Ending.EXACT: f"All {count} combinations of groups were refitted, so it is exact.",
        Ending.PRECISE: f"After {count} refits it is known up to the standard errors (±).",
        Ending.MAXIMUM: f"After {count} refits it was stopped: see the standard errors (±).",
    }
    return (
        f"In shares of the mean loss, {loss:.4f}; above zero a group hurts, below it helps. Groups "
        "overlap in what they teach: leave one out alone, and another still teaches the same, or "
        "only then starts to hurt. So what each does alone does not add up. Here each group is "
        "left out together with others in all ways, and the mean is its share (Shapley value): "
        f"the shares add up to what all of them do together. {how[found.ending]} A prediction "
        "takes each image alone."
    )


def _digest(workspace: Workspace, groups: Sequence[GroupEffect], on: Slice) -> str:
    digest = sha256(workspace.key.encode())
    digest.update(on.digest.encode())
    for group in groups:
        digest.update(f"{group.rows.shape} {group.rows.dtype} ".encode() + group.rows.tobytes())
    return digest.hexdigest()


@st.cache_data(max_entries=64, show_spinner=False)
def _values(
    asked: str, _workspace: Workspace, _groups: Sequence[GroupEffect], _on: Slice
) -> GroupValues:
    assert _workspace.refits is not None
    bar = st.progress(0.0, "Refitting without these groups ...")
    try:
        return shapley_values(
            _workspace.refits,
            [group.rows for group in _groups],
            lambda head: -_on.loss(head),
            progress=lambda done, most: bar.progress(
                done / most, f"Refitting: {done:,} of at most {most:,}"
            ),
        )
    finally:
        bar.empty()
