"""Where the classifier does badly: classes, the user's own groups, weak spots."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from app.metadata import LARGEST_FILE, MetadataRefused, read_metadata
from app.records import Record
from app.weak_spots import (
    WeakSpots,
    class_records,
    find_weak_spots,
    group_records,
    predicted_classes,
)
from app.web.pictures import gallery
from app.web.state import session
from app.web.wording import plain
from app.workspace import Workspace

_SPOTS_SHOWN = 5
_PICTURES = 8
_FLIPS_SHOWN = 8
_SIDE, _PAIR = 72, 200


def show_classes(workspace: Workspace) -> None:
    """Classes, groups by a table of the user's, weak spots, decisions that hang on one image."""
    st.caption(
        "Accuracy on the calibration images, with the interval in which it truly lies (Wilson, "
        "95%). Worse: so much below the other groups together that, of all groups called so, at "
        "most 5% are expected to be called so by chance."
    )
    records = class_records(workspace)
    table = _table("Class", records)
    table.insert(1, "Training images", [record["training_images"] for record in records])
    rare = [record["rare"] for record in records]
    table["Note"] = [
        ", ".join(filter(None, [note, "few training images" if few else ""]))
        for note, few in zip(table["Note"], rare, strict=True)
    ]
    _show_table(table, "Classes, the worst first")
    _show_metadata(workspace)
    _show_weak_spots(workspace)
    _show_single_flips(workspace)


def _table(heading: str, records: Sequence[Record]) -> pd.DataFrame:
    """How well each group of calibration images is classified."""
    return pd.DataFrame(
        {
            heading: [record["group"] for record in records],
            "Calibration images": [record["images"] for record in records],
            "Accuracy": [record["accuracy"] for record in records],
            "95% interval": [f"{r['low']:.1%} to {r['high']:.1%}" for r in records],
            "Decided by one image": [record["decided_by_one_image"] for record in records],
            "Note": ["worse" if record["worse"] else "" for record in records],
        }
    )


def _show_table(table: pd.DataFrame, alt: str) -> None:
    st.dataframe(
        table.sort_values("Accuracy", kind="stable"),
        hide_index=True,
        column_config={
            "Accuracy": st.column_config.NumberColumn(format="percent"),
            "Decided by one image": st.column_config.NumberColumn(
                format="percent",
                help="Share of its images that the refitted last layer classifies otherwise when "
                "one certain training image is left out (leave-one-out unfairness). Every one "
                "counted was put to the proof by a refit.",
            ),
        },
        alt=alt,
    )


def _show_metadata(workspace: Workspace) -> None:
    """Groups of the user's own."""
    st.markdown("#### Your own groups")
    uploaded = st.file_uploader(
        "A CSV about the calibration images",
        type="csv",
        max_upload_size=LARGEST_FILE >> 20,
        key=f"metadata-{workspace.key}",
        help="One column is called file and holds their paths; every other column makes groups: "
        "who took them, where, on what day. It is kept for this visit only.",
    )
    known = session().metadata_file.get(workspace.key, "")
    if uploaded is not None and uploaded.file_id != known:
        images = workspace.calibration.images
        names = [images.name(row) for row in range(len(images))]
        try:
            session().metadata[workspace.key] = read_metadata(uploaded.getvalue(), names)
        except MetadataRefused as error:
            st.error(str(error), icon=":material/error:")
        else:
            session().metadata_file[workspace.key] = uploaded.file_id
    for column, values in session().metadata.get(workspace.key, {}).items():
        different, groups = np.unique(values, return_inverse=True)
        records = group_records(workspace, different.tolist(), groups)
        _show_table(_table(f"By {column}", records), f"Groups by {column}")


def _show_weak_spots(workspace: Workspace) -> None:
    """Clusters of alike calibration images that are classified worse than the rest."""
    st.markdown("#### Weak spots")
    spots = _spots(workspace.key, workspace)
    st.caption(
        f"The calibration images in {len(spots.found.counts):,} groups that are alike to the "
        f"model, within each answer; {len(spots.worse):,} of them are classified worse than the "
        "rest, beyond chance. Look what the pictures have in common."
    )
    images = workspace.calibration.images
    labels, predicted = np.asarray(images.labels), predicted_classes(workspace)
    for spot in spots.worse[:_SPOTS_SHOWN]:
        rows = np.flatnonzero(spots.groups == spot)
        rows = rows[np.argsort(labels[rows] == predicted[rows], kind="stable")]
        st.markdown(
            f"**{spots.found.accuracy[spot]:.0%} right** of {len(rows):,} images that it calls "
            f"{plain(workspace.classes[predicted[rows[0]]])}; wrong ones first:"
        )
        shown = rows[:_PICTURES]
        names = [plain(workspace.classes[labels[row]]) for row in shown]
        gallery(workspace, shown, names, side=_SIDE, images=images)


@st.cache_data(max_entries=8, show_spinner="Looking for weak spots ...")
def _spots(key: str, _workspace: Workspace) -> WeakSpots:
    return find_weak_spots(_workspace)


def _show_single_flips(workspace: Workspace) -> None:
    """Calibration images that one training image decides, with that one."""
    flips = workspace.single_flips
    if flips is None:
        return
    found = np.flatnonzero(flips.by >= 0)
    st.markdown("#### Decided by one image")
    if not len(found):
        st.caption(
            f"None was found: leaving out any single training image seems to change no answer of "
            f"the refitted last layer to {len(flips.asked):,} calibration images."
        )
        return
    st.caption(
        f"For {len(found):,} of {len(flips.asked):,} calibration images the answer of the refitted "
        "last layer changes when one certain training image is left out: that is luck, not "
        "knowledge. Each was put to the proof by a refit."
    )
    names, held, learned = workspace.classes, workspace.calibration.images, workspace.bank.images
    grid = st.grid("auto", min_column_width=_PAIR, gap=("medium", "small"))
    for number in found[:_FLIPS_SHOWN]:
        asked, by = int(flips.asked[number]), int(flips.by[number])
        with grid.cell():
            left, right = st.columns(2)
            with left:
                gallery(workspace, [asked], [plain(names[held.labels[asked]])], _SIDE, held)
            with right:
                gallery(workspace, [by], [plain(names[learned.labels[by]])], _SIDE)
            after = plain(names[flips.after[number]])
            st.caption(f"Without the right one the left one would be {after}.")
