"""Where the images sit among the training images, and groups of unknown ones."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from app.map_selection import inside
from app.web.charts import map_figure
from app.web.edit_effect import leave_out
from app.web.job import Batch
from app.web.pictures import enlarged, gallery
from app.web.wording import plain
from app.workspace import Workspace
from ood.decision import Decision, Rule
from ood.novelty import SMALLEST_GROUP, group_flagged

SELECTION_SHOWN = 24
_SIDE = 72


@st.fragment
def show_map(
    workspace: Workspace,
    rule: Rule,
    batch: Batch | None,
    decisions: Sequence[Decision],
    clusters: np.ndarray,
) -> None:
    """The map, and the images that are selected on it."""
    st.markdown("#### Where it sits" if batch else "#### What it has learned from")
    warning = (
        " An image unlike all others still gets a place beside its nearest ones: distances on a "
        "map mislead, and the verdict does not use it."
    )
    st.caption(
        "Each dot is a training image; images that the model finds alike lie together. Draw around "
        "some to see them." + (warning if batch else "")
    )
    figure = _figure(
        workspace.key,
        str(rule),
        batch.digest if batch else "",
        rule,
        workspace,
        batch,
        decisions,
        clusters,
    )
    event = st.plotly_chart(
        figure,
        key=f"map-{rule}-{batch.digest if batch else ''}",
        on_select="rerun",
        selection_mode=("points", "box", "lasso"),
        config={"displaylogo": False, "scrollZoom": True},
        alt="Map of the training images by class, with the inspected images",
    )
    picked = [p["customdata"] for p in event["selection"]["points"] if p.get("customdata")]
    drawn = inside(event["selection"], workspace.coordinates)
    if picked or len(drawn):
        # A lasso means all training images inside, also those that the map does not draw.
        learned = drawn.tolist() or [int(row) for what, row in picked if what == "train"]
        own = [int(row) for what, row in picked if what == "image"]
        _show_selection(workspace, batch, own, learned)


# The very same object on every rerun: cache_data pickles, the pickled figure's JSON differs, and
# a figure that differs loses the selection.
@st.cache_resource(max_entries=32, show_spinner=False)
def _figure(
    path: str, rule: str, digest: str, _rule: Rule, _workspace: Workspace, _batch: Batch | None,
    _decisions: Sequence[Decision], _clusters: np.ndarray,
) -> go.Figure:  # fmt: skip
    flagged = _workspace.calibration_flagged(_rule)
    inspected = _batch is not None and _batch.inspection is not None
    return map_figure(
        _workspace.coordinates,
        np.asarray(_workspace.bank.images.labels),
        _workspace.classes,
        _workspace.calibration_places[flagged],
        _batch.inspection.places if inspected else np.empty((0, 2)),  # type: ignore[union-attr]
        [decision.verdict for decision in _decisions],
        [image.name for image in _batch.images] if _batch else [],
        _clusters,
    )


def _show_selection(
    workspace: Workspace, batch: Batch | None, own: Sequence[int], learned: Sequence[int]
) -> None:
    labels = Counter(workspace.classes[workspace.bank.images.labels[row]] for row in learned)
    counts = ", ".join(f"{n:,} {plain(name)}" for name, n in labels.most_common(5))
    st.markdown(
        f"**{len(own) + len(learned):,} selected**: {len(own):,} of yours, {len(learned):,} "
        "training images" + (f" ({counts}{', ...' if len(labels) > 5 else ''})" if learned else "")
    )
    if own and batch is not None:
        show_pictures(batch, own[:SELECTION_SHOWN])
    shown = learned[:: max(1, len(learned) // SELECTION_SHOWN)][:SELECTION_SHOWN]
    if shown:
        names = [plain(workspace.classes[workspace.bank.images.labels[r]]) for r in shown]
        gallery(workspace, shown, names, side=_SIDE)
        if (
            batch is not None
            and workspace.refits is not None
            and st.button(f"Leave these {len(learned):,} out and refit")
        ):
            leave_out(workspace, np.array(learned))
            st.rerun(scope="app")
    if len(shown) < len(learned):
        st.caption(f"Showing {len(shown)} of {len(learned):,} training images.")


def show_pictures(batch: Batch, rows: Iterable[int]) -> None:
    """Inspected images side by side."""
    grid = st.grid("auto", min_column_width=_SIDE, gap="xsmall")
    for row in rows:
        with grid.cell():
            picture = enlarged(batch.images[row].thumbnail, _SIDE)
            st.image(picture, width=_SIDE, alt=batch.images[row].name)


def flagged_clusters(
    workspace: Workspace, batch: Batch, decisions: Sequence[Decision], rule: Rule
) -> np.ndarray:
    """(N,) group of each image; -1 for those not flagged and those like no other."""
    assert batch.inspection is not None  # groups are made of inspected images only
    flagged = np.array([decision.flagged for decision in decisions])
    features = batch.inspection.activations.features
    normal = workspace.calibration.images.activations.features
    return _clusters(workspace.key, batch.digest, str(rule), features, flagged, normal)


@st.cache_data(max_entries=64, show_spinner="Grouping flagged images ...")
def _clusters(
    path: str,
    digest: str,
    rule: str,
    _features: np.ndarray,
    _flagged: np.ndarray,
    _normal: np.ndarray,
) -> np.ndarray:
    groups = np.full(len(_flagged), -1)
    groups[_flagged] = group_flagged(_features[_flagged], _normal)
    return groups


def show_clusters(batch: Batch, decisions: Sequence[Decision], clusters: np.ndarray) -> None:
    """Groups of flagged images that look alike, with their pictures."""
    flagged = sum(decision.flagged for decision in decisions)
    if flagged == 0:
        return
    st.markdown("#### Flagged images that look alike")
    groups = int(clusters.max(initial=-1)) + 1
    if groups == 0:
        st.caption(
            f"None of the {flagged:,} flagged images form a group of "
            f"{SMALLEST_GROUP} or more apart from the known classes."
        )
        return
    st.caption(
        "Grouped by what the model sees in them, not by the map. A group may be a new class, one "
        "fault seen many times, or normal images that are odd in the same way."
    )
    for group in range(groups):
        rows = np.flatnonzero(clusters == group)
        st.markdown(f"**Group {group + 1}**: {len(rows):,} images")
        show_pictures(batch, rows[:SELECTION_SHOWN])
    alone = flagged - int((clusters >= 0).sum())
    if alone:
        st.caption(f"{alone:,} more flagged images are like no group.")
