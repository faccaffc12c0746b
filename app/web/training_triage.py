"""A list of training images, and one of them to decide on: by button or key."""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import numpy as np
import pandas as pd
import streamlit as st

from app.audit import Audit, reasons
from app.triage import Action, Mark, Triage
from app.web.pictures import data_url, enlarged, gallery
from app.web.state import session
from app.web.training_lists import COLUMN_HELP, LISTS
from app.web.wording import literal, plain
from app.workspace import Workspace

SHOWN = 500
NEAREST_SHOWN = 6
_SIDE = 240
_SIGN = {
    Action.KEEP: "✓ keep",
    Action.RELABEL: "↻",
    Action.REMOVE: "✕ remove",
    Action.UNSURE: "? unsure",
}
_FORMATS = {"Harm": "%.1e", "Damage": "%.1e", "Copy": "%d"}
_REASONS = {
    "label": "perhaps labelled wrongly",
    "duplicate": "a copy of another",
    "leak": "a calibration image too",
    "odd": "unlike all others",
    "harmful": "hurts the classifier",
    "worthless": "worth less than nothing to its neighbours",
}


def show_list(
    workspace: Workspace,
    audit: Audit,
    triage: Triage,
    marks: Mapping[str, Mark],
    rows: np.ndarray,
    name: str,
) -> None:
    """The table, then the selected image with its buttons."""
    if not len(rows):
        st.success("Nothing here to look at.", icon=":material/check_circle:")
        return
    shown = rows[:SHOWN]
    decided = sum(workspace.training_ids[row] in marks for row in shown)
    more = f" The first {SHOWN:,} are listed." if len(rows) > SHOWN else ""
    st.caption(f"{LISTS[name].meaning} **{len(rows):,} images, {decided:,} decided.**{more}")
    selected = selected_row(shown.tolist())
    left, right = st.columns([5, 4], gap="large")
    with left:
        _show_table(workspace, audit, marks, shown, name, selected)
    with right:
        _show_image(workspace, audit, triage, marks, selected, shown.tolist())


def selected_row(rows: Sequence[int]) -> int:
    """The image chosen last if it is in the list, else its first."""
    chosen = session().training_row
    return chosen if chosen in rows else rows[0]


def _show_table(
    workspace: Workspace,
    audit: Audit,
    marks: Mapping[str, Mark],
    rows: np.ndarray,
    name: str,
    selected: int,
) -> None:
    images, classes = workspace.bank.images, workspace.classes
    suggested = audit.suggested[rows]
    table = pd.DataFrame(
        {
            "Image": [data_url(images.thumbnails[row]) for row in rows],
            "Label": [classes[images.labels[row]] for row in rows],
            "Others say": [classes[s] if s >= 0 else "" for s in suggested],
            "Decision": [said(marks.get(workspace.training_ids[row])) for row in rows],
            **{heading: score(audit)[rows] for heading, score in LISTS[name].columns.items()},
        }
    )
    table = table.dropna(axis=1, how="all")  # no epochs were logged
    key = f"training-{name}-{sha256(rows.tobytes()).hexdigest()}-{session().training_steps}"
    st.dataframe(
        table,
        key=key,
        hide_index=True,
        height=560,
        row_height=44,
        on_select=lambda: _select_from_table(key, rows),
        selection_mode="single-cell",
        selection_default={"selection": {"cells": [(rows.tolist().index(selected), "Label")]}},
        column_config={
            "Image": st.column_config.ImageColumn(width="small"),
            **{
                heading: st.column_config.NumberColumn(
                    format=_FORMATS.get(heading, "%.2f"), help=COLUMN_HELP[heading]
                )
                for heading in LISTS[name].columns
            },
        },
        alt="Training images, the most doubtful first",
    )


def said(mark: Mark | None) -> str:
    """A decision in a table cell."""
    if mark is None:
        return ""
    return f"↻ {mark.label}" if mark.action is Action.RELABEL else _SIGN[mark.action]


def _show_image(
    workspace: Workspace,
    audit: Audit,
    triage: Triage,
    marks: Mapping[str, Mark],
    row: int,
    rows: Sequence[int],
) -> None:
    images, classes = workspace.bank.images, workspace.classes
    label, suggested = classes[images.labels[row]], int(audit.suggested[row])
    st.markdown(f"**{rows.index(row) + 1} of {len(rows)}** {literal(images.name(row))}")
    picture, facts = st.columns([2, 3])
    picture.image(
        enlarged(images.thumbnails[row], _SIDE), width=_SIDE, alt=f"training image: {label}"
    )
    with facts:
        st.markdown(f"Labelled **{plain(label)}**")
        if suggested >= 0:
            st.markdown(f"The others say **{plain(classes[suggested])}**")
        why = [_REASONS[name] for name, doubtful in reasons(audit).items() if doubtful[row]]
        st.caption(", ".join(why).capitalize() + "." if why else "Nothing doubtful found.")
        if mark := marks.get(workspace.training_ids[row]):
            st.markdown(f"Decided: **{plain(said(mark))}**")
    _show_buttons(workspace, triage, marks, row, rows, suggested)
    _show_copies(workspace, audit, row)
    others = workspace.bank.locate_own(np.array([row])).neighbours
    assert others is not None  # locate_own has just set them
    nearest = others.rows[0][others.rows[0] != row][:NEAREST_SHOWN]
    st.caption("Most alike to the model, among the other training images:")
    gallery(workspace, nearest, [plain(classes[images.labels[r]]) for r in nearest], side=64)


def _show_copies(workspace: Workspace, audit: Audit, row: int) -> None:
    """The same picture elsewhere."""
    images, classes = workspace.bank.images, workspace.classes
    if audit.duplicates[row] >= 0:
        copies = np.setdiff1d(np.flatnonzero(audit.duplicates == audit.duplicates[row]), [row])
        st.caption("The same picture, or nearly, among the training images:")
        names = [plain(classes[images.labels[copy]]) for copy in copies]
        gallery(workspace, copies[:NEAREST_SHOWN], names[:NEAREST_SHOWN], side=64)
    if (leak := int(audit.leaks[row])) >= 0:
        st.caption("The same picture, or nearly, is a calibration image:")
        held_out = workspace.calibration.images
        gallery(workspace, [leak], [plain(classes[held_out.labels[leak]])], 64, held_out)


def _show_buttons(
    workspace: Workspace,
    triage: Triage,
    marks: Mapping[str, Mark],
    row: int,
    rows: Sequence[int],
    suggested: int,
) -> None:
    known_by, classes = workspace.training_ids[row], list(workspace.classes)
    others = [c for c in classes if c != classes[workspace.bank.images.labels[row]]]
    first = others.index(classes[suggested]) if suggested >= 0 else None
    label, note = st.columns(2)
    to = label.selectbox(
        "Label it should have",
        others,
        index=first,
        placeholder="Class",
        key=f"to-{triage.path}-{known_by}",
    )
    said_before = marks[known_by].note if known_by in marks else ""
    words = note.text_input(
        "Note", said_before, key=f"note-{triage.path}-{known_by}", max_chars=500
    )
    after = rows[min(rows.index(row) + 1, len(rows) - 1)]
    with st.container(horizontal=True, gap="xsmall"):
        for action, text, shortcut, icon in (
            (Action.KEEP, "Keep", "k", "check"),
            (Action.RELABEL, "Relabel", "l", "sync"),
            (Action.REMOVE, "Remove", "x", "close"),
            (Action.UNSURE, "Unsure", "u", "question_mark"),
        ):
            st.button(
                text,
                key=f"triage-{action}",
                icon=f":material/{icon}:",
                shortcut=shortcut,
                disabled=action is Action.RELABEL and to is None,
                on_click=_decide,
                args=(triage, Mark(known_by, action, _new_label(action, to), words)),
                kwargs={"after": after},
            )  # fmt: skip
        st.button(
            "Undo",
            key="triage-undo",
            icon=":material/undo:",
            shortcut="z",
            disabled=known_by not in marks,
            on_click=_decide,
            args=(triage, Mark(known_by, Action.UNDO)),
            kwargs={"after": row},
        )
    back = rows[max(rows.index(row) - 1, 0)]
    with st.container(horizontal=True, gap="xsmall"):
        st.button("Previous", key="training-back", icon=":material/chevron_left:",
                  shortcut="Left", on_click=_select, args=(back,))  # fmt: skip
        st.button("Next", key="training-next", icon=":material/chevron_right:",
                  shortcut="Right", on_click=_select, args=(after,))  # fmt: skip
    if failed := session().triage_failed:
        st.error(failed, icon=":material/error:")
        session().triage_failed = ""


def _new_label(action: Action, chosen: str | None) -> str:
    return chosen if action is Action.RELABEL and chosen is not None else ""


def _decide(triage: Triage, mark: Mark, *, after: int) -> None:
    try:
        triage.mark(mark)
    except OSError as error:
        session().triage_failed = (
            f"This decision could not be written, earlier ones are safe: {error}"
        )
        return
    _select(after)


def _select(row: int) -> None:
    session().training_row = row
    session().training_steps += 1


def _select_from_table(key: str, rows: np.ndarray) -> None:
    cells = st.session_state[key]["selection"]["cells"]
    if cells and cells[0][0] < len(rows):
        session().training_row = int(rows[cells[0][0]])
