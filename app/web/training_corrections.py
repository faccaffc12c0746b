"""What the decisions would change, and files to take away."""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import streamlit as st

from app.audit import Audit, doubtful
from app.corrections import (
    TABLES,
    Preview,
    cleaned_manifest,
    edit_of,
    for_cleanlab,
    for_fiftyone,
    issue_records,
    preview,
)
from app.counterfactual import Edit
from app.triage import Action, Mark
from app.workspace import Workspace
from explain.head import RefitDidNotConverge

_WORDS = {
    Action.REMOVE: "to remove",
    Action.RELABEL: "to relabel",
    Action.KEEP: "to keep",
    Action.UNSURE: "unsure",
}


def show_corrections(workspace: Workspace, audit: Audit, marks: Mapping[str, Mark]) -> None:
    """How many decisions there are, their effect by a refit, downloads."""
    st.divider()
    st.markdown("#### Your decisions")
    counts = Counter(mark.action for mark in marks.values())
    if not counts:
        st.caption("None yet. They are kept for you as you make them, also over a restart.")
    else:
        told = [f"**{counts[a]:,}** {word}" for a, word in _WORDS.items() if counts[a]]
        st.markdown(", ".join(told) + ".")
    edit = edit_of(workspace, marks)
    if edit and workspace.refits is not None:
        try:
            st.markdown(preview_sentence(_preview(workspace.key, edit, workspace)))
        except RefitDidNotConverge as error:
            st.warning(str(error), icon=":material/warning:")
    _show_downloads(workspace, audit, marks)


def preview_sentence(found: Preview) -> str:
    """The effect of the corrections, as Markdown."""
    low, high = 100 * found.low, 100 * found.high
    if found.low > 0:
        verdict = "They help."
    elif found.high < 0:
        verdict = "They hurt."
    else:
        verdict = "That may be chance."
    return (
        f"Refitted with them, the last layer classifies **{found.after:.2%}** of "
        f"{found.images:,} calibration images as labelled, **{found.before:.2%}** without: "
        f"{found.gained:,} become right, {found.lost:,} wrong; the difference is between "
        f"{low:+.2f} and {high:+.2f} points, with 95% confidence. **{verdict}** What it sees in "
        "images stays as it is; a network trained anew may differ."
    )


def _show_downloads(workspace: Workspace, audit: Audit, marks: Mapping[str, Mark]) -> None:
    files: tuple[tuple[str, str, str, Callable[[], bytes]], ...] = (
        ("Doubtful, CSV", "training-issues.csv", "text/csv",
         partial(_issues, workspace, audit, marks, "csv")),
        ("Doubtful, Parquet", "training-issues.parquet", "application/vnd.apache.parquet",
         partial(_issues, workspace, audit, marks, "parquet")),
        ("Cleaned list", "training-cleaned.csv", "text/csv",
         partial(cleaned_manifest, workspace, marks)),
        ("For cleanlab", "label-issues.csv", "text/csv", partial(for_cleanlab, workspace, audit)),
        ("For FiftyOne", "labels.json", "application/json",
         partial(for_fiftyone, workspace, marks)),
    )  # fmt: skip
    with st.container(horizontal=True, gap="xsmall"):
        for label, name, mime, make in files:
            st.download_button(
                label, data=make, file_name=name, mime=mime, icon=":material/download:",
                on_click="ignore", key=f"download-{name}",
            )  # fmt: skip


def _issues(workspace: Workspace, audit: Audit, marks: Mapping[str, Mark], form: str) -> bytes:
    """Records of everything doubtful or decided."""
    decided = [workspace.rows_by_id[image] for image in marks if image in workspace.rows_by_id]
    rows = np.union1d(doubtful(audit), np.asarray(decided, np.int64))
    return TABLES[form](issue_records(workspace, audit, marks, rows))


@st.cache_data(max_entries=64, show_spinner="Refitting with your corrections ...")
def _preview(key: str, edit: Edit, _workspace: Workspace) -> Preview:
    return preview(_workspace, edit)
