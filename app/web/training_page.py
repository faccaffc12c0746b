"""The Training set page: what is doubtful about the images that the classifier learned from."""

import numpy as np
import streamlit as st

from app.triage import Triage
from app.web.header import header
from app.web.training_corrections import show_corrections
from app.web.training_groups import show_classes, show_groups
from app.web.training_lists import LISTS, ordered
from app.web.training_triage import show_list

_GROUPS, _CLASSES = "Groups that hurt", "Classes"
_ANY = "All classes"

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
labels = np.asarray(workspace.bank.images.labels)
titles = {name: entry.title for name, entry in LISTS.items()}
view = st.segmented_control(
    "What to look for", [*titles.values(), _GROUPS, _CLASSES], default=titles["labels"],
    required=True, key="view", bind="query-params", label_visibility="collapsed",
)  # fmt: skip
if view == _GROUPS:
    show_groups(workspace, audit, triage)
elif view == _CLASSES:
    show_classes(workspace)
else:
    name = next(name for name, title in titles.items() if title == view)
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    chosen = left.selectbox("Class", [_ANY, *workspace.classes], key="class")
    open_only = right.toggle("Only what is not decided yet", key="open-only")
    label = None if chosen == _ANY else workspace.classes.index(chosen)
    rows = ordered(audit, name, labels, label)
    if open_only:
        images = workspace.bank.images
        rows = np.array([row for row in rows if images.sha256(int(row)) not in marks], np.int64)
    show_list(workspace, audit, triage, marks, rows, name)
show_corrections(workspace, audit, marks)
