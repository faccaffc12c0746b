"""The Training set page: what is doubtful about the images that the classifier learned from."""

from dataclasses import replace

import numpy as np
import streamlit as st

from app.audit import Audit
from app.triage import Mark, Triage
from app.web.edit_effect import leave_out, show_edit_effect
from app.web.header import header
from app.web.slice_choice import choose_slice, effects_on
from app.web.training_classes import show_classes
from app.web.training_corrections import show_corrections
from app.web.training_groups import show_groups
from app.web.training_lists import LISTS, ordered
from app.web.training_map import show_training_map
from app.web.training_triage import show_list
from app.workspace import Workspace

_GROUPS, _CLASSES = "Groups that hurt", "Classes and weak spots"
_ANY = "All classes"


def show_doubts(
    workspace: Workspace, audit: Audit, triage: Triage, marks: dict[str, Mark], name: str
) -> None:
    """One of the lists, by class, and what the classifier would be without it."""
    labels = np.asarray(workspace.bank.images.labels)
    left, middle, right = st.columns([2, 2, 2], vertical_alignment="bottom")
    chosen = left.selectbox("Class", [_ANY, *workspace.classes], key="class")
    if name == "harmful" and workspace.refits is not None:
        with middle:
            _, on = choose_slice(workspace)
        audit = replace(audit, harm=-effects_on(workspace.key, on.digest, on, workspace))
    elif name == "harmful":
        st.info(
            "The last layer of this model is too large to be refitted, or found no optimum, so "
            "what each training image does to it cannot be listed.",
            icon=":material/info:",
        )
    open_only = right.toggle("Only what is not decided yet", key="open-only")
    label = None if chosen == _ANY else workspace.classes.index(chosen)
    rows = (
        show_training_map(workspace, audit, label)
        if name == "map"
        else ordered(audit, name, labels, label)
    )
    if open_only:
        rows = np.array([r for r in rows if workspace.training_ids[r] not in marks], np.int64)
    if name == "map" and not len(rows):
        return
    show_list(workspace, audit, triage, marks, rows, name)
    if workspace.refits is not None and 0 < len(rows) < len(labels):
        st.button(
            f"Try without these {len(rows):,}", icon=":material/science:", key="try-without",
            help="Refits the last layer without them, in truth, and shows what that does.",
            on_click=leave_out, args=(workspace, rows),
        )  # fmt: skip


with header() as workspace:
    reviewer = st.text_input(
        "Your name", "me", key="reviewer", bind="query-params", max_chars=40, width=160,
        label_visibility="collapsed", help="Decisions are kept under this name.",
    )  # fmt: skip
audit = workspace.audit
if audit is None:
    st.info(
        "This workspace was prepared before training sets were audited. Prepare it again to look "
        "for wrong labels, copies and harmful images.",
        icon=":material/info:",
    )
    st.stop()
triage = Triage.of(workspace.manifest.name, reviewer)
marks = triage.marks()
views = {entry.title: name for name, entry in LISTS.items()}
view = st.segmented_control(
    "What to look for", [*views, _GROUPS, _CLASSES], default=LISTS["labels"].title,
    required=True, key="view", bind="query-params", label_visibility="collapsed",
)  # fmt: skip
if view == _GROUPS:
    show_groups(workspace, audit, triage)
elif view == _CLASSES:
    show_classes(workspace)
else:
    show_doubts(workspace, audit, triage, marks, views[view])
show_edit_effect(workspace)
show_corrections(workspace, audit, marks)
