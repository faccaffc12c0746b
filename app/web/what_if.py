"""What if it had not learned from these? Asked by a button, answered by a refit."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from app.counterfactual import Edit, Outcome, Refitted, outcome
from app.inspection import Inspection
from app.web.edit_effect import (
    change,
    current_edit,
    leave_out,
    refitted_without,
    show_slice_effects,
    undo,
)
from app.web.pictures import gallery
from app.web.state import session
from app.web.wording import plain
from app.workspace import Workspace
from explain.flips import LARGEST_FLIP, FlipSet, flip_set
from explain.head import RefitDidNotConverge
from explain.influence import HeadInfluence, Influences

_SHOWN = 12


def show_what_if(
    workspace: Workspace,
    inspection: Inspection,
    row: int,
    influences: Influences | None,
    *,
    numbers: bool,
) -> None:
    """Leave training images out and see what the answer becomes."""
    if influences is None:
        return
    if workspace.refits is None:
        st.caption(
            ":material/info: The last layer of this model is too large to be refitted, so what it "
            "would say without some training images cannot be shown."
        )
        return
    st.markdown("#### What if it had not learned from them?")
    st.caption(
        "Leave training images out and its last layer is refitted on the others, in truth: what "
        "the answer then is, is shown and not guessed. What it sees in images stays as it is."
    )
    features = np.asarray(inspection.activations.features[row])
    _show_choices(workspace, inspection, row, influences, features, numbers=numbers)
    edit = current_edit(workspace)
    if not edit:
        return
    try:
        refitted = refitted_without(workspace.key, edit, workspace)
    except RefitDidNotConverge as error:
        st.error(str(error), icon=":material/error:")
        return
    found = outcome(workspace, refitted, features)
    st.markdown(f"##### {outcome_sentence(workspace.classes, edit, found)}")
    _show_edit(workspace, edit, numbers=numbers)
    if numbers:
        _show_numbers(workspace, refitted, found)


def outcome_sentence(classes: Sequence[str], edit: Edit, found: Outcome) -> str:
    """What the answer is without these images, as Markdown."""
    before, after = int(found.before.argmax()), int(found.after.argmax())
    count = len(edit.removed) + len(edit.relabelled)
    what = "Without this image" if count == 1 else f"Without these {count:,} images"
    if edit.relabelled:
        what = "With this change" if count == 1 else f"With these {count:,} changes"
    was, now = _percent(found.before[before]), _percent(found.after[after])
    if after == before:
        return f"{what} it would still say {plain(classes[before])}: {now} sure instead of {was}."
    return (
        f"{what} it would say {plain(classes[after])} ({now} sure) instead of "
        f"{plain(classes[before])} ({was})."
    )


def _show_choices(
    workspace: Workspace,
    inspection: Inspection,
    row: int,
    influences: Influences,
    features: np.ndarray,
    *,
    numbers: bool,
) -> None:
    neighbours = inspection.activations.neighbours
    assert neighbours is not None  # an Inspection's activations are located
    nearest = neighbours.rows[row, : len(influences.helpful)]
    choices = [
        (f"Leave out the {len(influences.helpful)} that taught it", influences.helpful),
        (f"Leave out the {len(nearest)} nearest", nearest),
    ]
    if numbers:
        spoke = len(influences.harmful)
        choices.append((f"Leave out the {spoke} that spoke against it", influences.harmful))
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        for label, rows in choices:
            if len(rows):
                st.button(label, on_click=leave_out, args=(workspace, rows))
        find = st.button(
            "Find the fewest that change it",
            icon=":material/search:",
            help="Orders the training images by how much they support this answer, and refits "
            "until the smallest number is found without which it is another.",
        )
        if current_edit(workspace):
            st.button("Undo", icon=":material/undo:", on_click=undo, args=(workspace,))
    if numbers:
        _show_class_and_label(workspace, influences)
    if find:
        _find_flip(workspace, features)
    if session().unflippable == features.tobytes():
        st.info(
            f"Leaving out even the {LARGEST_FLIP:,} images that support it most does not change "
            "the answer: it rests on very many.",
            icon=":material/info:",
        )


def _find_flip(workspace: Workspace, features: np.ndarray) -> None:
    assert isinstance(workspace.influence, HeadInfluence) and workspace.refits is not None
    with st.spinner("Refitting without more and more of them ..."):
        try:
            found: FlipSet | None = flip_set(workspace.influence, workspace.refits, features)
        except RefitDidNotConverge as error:
            st.error(str(error), icon=":material/error:")
            return
    if found is None:
        session().unflippable = features.tobytes()
    else:
        change(workspace, Edit(removed=tuple(found.rows.tolist())))
    st.rerun()


def _show_class_and_label(workspace: Workspace, influences: Influences) -> None:
    """For people who debug: a whole class away, or another label for one image."""
    labels = workspace.bank.images.labels
    left, middle, right, button = st.columns([3, 3, 3, 2], vertical_alignment="bottom")
    shown = [*influences.harmful.tolist(), *influences.helpful.tolist()]
    names = list(workspace.classes)
    picked = left.selectbox(
        "Leave out a whole class",
        range(len(names)),
        index=None,
        format_func=names.__getitem__,
        placeholder="Class",
        key=f"without-class-{len(session().edits.get(workspace.key, []))}",
    )
    if picked is not None:
        leave_out(workspace, np.flatnonzero(np.asarray(labels) == picked))
        st.rerun()
    row = middle.selectbox(
        "Or give one of those above another label",
        shown,
        index=None,
        format_func=lambda row: f"{names[labels[row]]}: {workspace.bank.images.name(row)}",
        placeholder="Training image",
        key="relabel-row",
    )
    label = right.selectbox(
        "Its other label",
        range(len(names)),
        index=None,
        format_func=names.__getitem__,
        placeholder="Class",
        key="relabel-label",
    )
    button.button(
        "Relabel",
        disabled=row is None or label is None or label == labels[row],
        on_click=_relabel,
        args=(workspace, row, label),
    )


def _show_edit(workspace: Workspace, edit: Edit, *, numbers: bool) -> None:
    images, classes = workspace.bank.images, workspace.classes
    shown = edit.removed[:_SHOWN]
    if shown:
        gallery(workspace, shown, [plain(classes[images.labels[row]]) for row in shown])
    if edit.relabelled:
        rows = [row for row, _ in edit.relabelled]
        captions = [
            f"{plain(classes[images.labels[row]])} as {plain(classes[label])}"
            for row, label in edit.relabelled
        ]
        gallery(workspace, rows, captions)
    rest = len(edit.removed) - len(shown)
    more = f"and {rest:,} more are left out. " if rest else ""
    st.caption(
        f"{more}Refitted on the other {len(images) - len(edit.removed):,} training images. They "
        "stay left out for every image you look at, until you undo it."
    )


def _show_numbers(workspace: Workspace, refitted: Refitted, found: Outcome) -> None:
    before, against = int(found.before.argmax()), found.against
    names = workspace.classes
    st.caption(
        f"Numbers: margin of {plain(names[before])} over {plain(names[against])} "
        f"{found.margin:+.3f}; influence predicted a change of {found.predicted:+.3f}, the refit "
        f"gave {found.change:+.3f}. What it does to the calibration images:"
    )
    show_slice_effects(workspace, refitted)


def _relabel(workspace: Workspace, row: int, label: int) -> None:
    change(workspace, current_edit(workspace).relabel(row, label))


def _percent(share: float) -> str:
    return "over 99.9%" if share > 0.999 else f"{share:.1%}"
