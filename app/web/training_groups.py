"""Groups of training images that hurt a slice, and classes that do badly."""

import numpy as np
import pandas as pd
import streamlit as st

from app.audit import Audit
from app.triage import Action, Mark, Triage
from app.web.pictures import gallery
from app.web.wording import plain
from app.workspace import Workspace
from explain.effects import GroupEffect, Slice, group_effects, refit_without_group, removal_effects
from explain.subgroups import rare_classes, wilson_interval

GROUPS_SHOWN = 5
_PICTURES = 10
_ALL = "All calibration images"


def show_groups(workspace: Workspace, audit: Audit, triage: Triage) -> None:
    """Groups of alike training images, the most hurtful for a chosen slice first."""
    if workspace.influence is None or workspace.refits is None:
        st.info(
            "For this model there are no influences, so groups cannot be weighed.",
            icon=":material/info:",
        )
        return
    st.caption(
        "Training images of one class that are alike to the model, taken together: what leaving "
        "the whole group out does to the calibration images. Predicted by influence; press the "
        "button to refit without it, in truth. A group that hurts one class may help another."
    )
    names = list(workspace.classes)
    chosen = st.selectbox("Which images does it hurt?", [_ALL, *names], key="slice")
    label = None if chosen == _ALL else names.index(chosen)
    groups = _effects(workspace.key, label, workspace, audit)
    on = calibration_slice(workspace, label)
    hurtful = [group for group in groups if group.predicted < 0][:GROUPS_SHOWN]
    if not hurtful:
        st.success("No group hurts these images.", icon=":material/check_circle:")
    for number, group in enumerate(hurtful, start=1):
        _show_group(workspace, triage, on, group, number, chosen)


def calibration_slice(workspace: Workspace, label: int | None) -> Slice:
    """The calibration images of a class; all of them for None."""
    images = workspace.calibration.images
    labels = np.asarray(images.labels)
    rows = np.arange(len(labels)) if label is None else np.flatnonzero(labels == label)
    return Slice(np.asarray(images.activations.features[rows]), labels[rows])


def _show_group(
    workspace: Workspace, triage: Triage, on: Slice, group: GroupEffect, number: int, chosen: str
) -> None:
    labels, classes = workspace.bank.images.labels, workspace.classes
    share = -group.predicted / on.loss(workspace.refits.head)  # type: ignore[union-attr]
    st.markdown(
        f"**Group {number}**: {len(group.rows):,} images labelled {plain(classes[group.label])}. "
        f"Without them the mistakes on {plain(chosen)} would weigh {share:.1%} less, by prediction."
    )
    shown = group.rows[:_PICTURES]
    gallery(workspace, shown, [plain(classes[labels[row]]) for row in shown], side=72)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        if st.button("Refit without it", key=f"group-{number}", icon=":material/science:"):
            assert workspace.refits is not None
            loss, accuracy = refit_without_group(workspace.refits, group, on)
            st.markdown(
                f"In truth: loss {loss:+.4f} (predicted {group.predicted:+.4f}), accuracy "
                f"{100 * accuracy:+.2f} points on {len(on):,} images."
            )
        if st.button("Mark all for removal", key=f"remove-{number}", icon=":material/close:"):
            try:
                for row in group.rows:
                    sha256 = workspace.bank.images.sha256(int(row))
                    triage.mark(Mark(sha256, Action.REMOVE, note=f"group that hurts {chosen}"))
            except OSError as error:
                st.error(f"Not all could be marked: {error}", icon=":material/error:")
            else:
                st.rerun()


def show_classes(workspace: Workspace) -> None:
    """How many images each class has, and how well it does."""
    st.caption(
        "Accuracy on the calibration images, with the interval in which it truly lies (Wilson, "
        "95%). A class with few training images, or far below the others, needs more or better "
        "ones."
    )
    labels = np.asarray(workspace.bank.images.labels)
    images = workspace.calibration.images
    held_out = np.asarray(images.labels)
    right = images.activations.logits.argmax(axis=1) == held_out
    classes = range(len(workspace.classes))
    total = np.array([(held_out == c).sum() for c in classes])
    good = np.array([right[held_out == c].sum() for c in classes])
    low, high = wilson_interval(good, total)
    rare = np.isin(np.arange(len(total)), rare_classes(labels, len(total)))
    below = high < right.mean()
    notes = np.where(rare, "few images", np.where(below, "below the others", ""))
    table = pd.DataFrame(
        {
            "Class": workspace.classes,
            "Training images": np.bincount(labels, minlength=len(total)),
            "Accuracy": good / np.maximum(total, 1),
            "95% interval": [f"{a:.1%} to {b:.1%}" for a, b in zip(low, high, strict=True)],
            "Note": notes,
        }
    ).sort_values("Accuracy")
    st.dataframe(
        table,
        hide_index=True,
        column_config={"Accuracy": st.column_config.NumberColumn(format="percent")},
        alt="Classes, the worst first",
    )


@st.cache_data(max_entries=64, show_spinner="Weighing groups ...")
def _effects(
    key: str, label: int | None, _workspace: Workspace, _audit: Audit
) -> list[GroupEffect]:
    assert _workspace.influence is not None
    effects = removal_effects(_workspace.influence, calibration_slice(_workspace, label))
    return group_effects(effects, _audit.groups, np.asarray(_workspace.bank.images.labels))
