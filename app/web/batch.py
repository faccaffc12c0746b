"""A batch: summary, table, downloads."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import streamlit as st

from app.records import WRITERS, image_record, refused_record, spreadsheet_safe
from app.uploads import RefusedImage
from app.web.job import Batch
from app.web.pictures import data_url
from app.web.state import session
from app.web.wording import VERDICT_COLOUR, VERDICT_ICON, VERDICT_SIGN, literal, plain
from app.workspace import Workspace
from ood.decision import Decision, Verdict

_MIME = {
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "json": "application/jsonl",
}
_SUFFIX = {"csv": "csv", "parquet": "parquet", "json": "jsonl"}


def show_summary(batch: Batch, decisions: Sequence[Decision]) -> None:
    """How many of each verdict, as badges."""
    counts = Counter(decision.verdict for decision in decisions)
    with st.container(horizontal=True, width="content", gap="xsmall", vertical_alignment="center"):
        for verdict in _shown(counts):
            st.badge(
                f"{counts[verdict]:,} {verdict}",
                icon=VERDICT_ICON[verdict],
                color=VERDICT_COLOUR[verdict],  # type: ignore[arg-type]
            )
        if batch.refused:
            st.badge(f"{len(batch.refused):,} refused", icon=":material/block:", color="gray")


def _shown(counts: Mapping[Verdict, int]) -> list[Verdict]:
    """The verdicts worth naming: the three zones, and undecided where there is such an image."""
    zones = [Verdict.UNKNOWN, Verdict.UNSURE, Verdict.KNOWN]
    return zones + ([Verdict.UNDECIDED] if counts[Verdict.UNDECIDED] else [])


def show_refused(refused: Sequence[RefusedImage]) -> None:
    """Files that could not be inspected, each with its reason."""
    rows = [{"File": literal(r.name), "Why": plain(r.reason)} for r in refused]
    label = f"{len(refused):,} files could not be inspected"
    with (
        st.expander(label, icon=":material/block:"),
        st.container(height=300 if len(rows) > 6 else "content", border=False),
    ):
        st.table(rows, border="horizontal")


def show_table(
    workspace: Workspace,
    batch: Batch,
    decisions: Sequence[Decision],
    discoveries: np.ndarray,
    clusters: np.ndarray,
) -> list[int]:
    """The images, oddest first; a click shows one in detail. Returns the rows in their order."""
    assert batch.inspection is not None  # a table is drawn of inspected images only
    counts = Counter(decision.verdict for decision in decisions)
    chosen = st.pills(
        "Show",
        [v for v in _shown(counts) if counts[v]],
        selection_mode="multi",
        format_func=lambda v: f"{VERDICT_ICON[v]} {v} ({counts[v]})",
        key="filter",
        label_visibility="collapsed",
    )
    order = oddest_first(decisions, chosen)
    selected = selected_row(order)
    table = pd.DataFrame(
        {
            "Image": [data_url(batch.images[row].thumbnail) for row in order],
            "Verdict": [
                f"{VERDICT_SIGN[v]} {v}" for v in (decisions[row].verdict for row in order)
            ],
            "Class": [workspace.classes[decisions[row].predicted] for row in order],
            "Confidence": [float(batch.inspection.confidence[row]) for row in order],
            "p-value": [decisions[row].p_value for row in order],
            "Stands out": discoveries[order],
            "Group": [_group_name(int(clusters[row])) for row in order],
            "File": [spreadsheet_safe(batch.images[row].name) for row in order],
        }
    )
    key = f"table-{batch.digest[:12]}-{session().steps}"
    st.dataframe(
        table,
        key=key,
        hide_index=True,
        height=min(38 + 44 * len(order), 400),
        row_height=44,
        on_select=lambda: _select_from_table(key, order),
        selection_mode="single-cell",  # a click anywhere in the row
        selection_default={"selection": {"cells": [(order.index(selected), "Verdict")]}},
        column_config={
            "Image": st.column_config.ImageColumn(width="small"),
            "Confidence": st.column_config.NumberColumn(format="percent"),
            "p-value": st.column_config.NumberColumn(
                format="%.4f", help="Share of normal images that look at least this odd."
            ),
            "Stands out": st.column_config.CheckboxColumn(
                help="In a list of which at most 10% are expected to be normal images."
            ),
            "Group": st.column_config.TextColumn(help="Flagged images that look alike."),
        },
        alt="Inspected images, the oddest first",
    )
    return order


def oddest_first(decisions: Sequence[Decision], chosen: Sequence[Verdict]) -> list[int]:
    """Rows by p-value, of the chosen verdicts; of all when none is chosen or none fits any more."""
    order = sorted(range(len(decisions)), key=lambda row: decisions[row].p_value)
    return [row for row in order if decisions[row].verdict in chosen] or order


def selected_row(order: Sequence[int]) -> int:
    """The image chosen last if it is among these, else the first of them."""
    chosen = session().selected
    return chosen if chosen is not None and chosen in order else order[0]


def show_steps(batch: Batch, order: Sequence[int]) -> None:
    """Previous and next, by button or arrow key."""
    selected = selected_row(order)
    position = order.index(selected)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Previous",
            icon=":material/chevron_left:",
            shortcut="Left",
            disabled=position == 0,
            on_click=lambda: session().select(order[position - 1]),
        )
        st.button(
            "Next",
            icon=":material/chevron_right:",
            shortcut="Right",
            disabled=position == len(order) - 1,
            on_click=lambda: session().select(order[position + 1]),
        )
        name = literal(batch.images[selected].name)
        st.markdown(f"**{position + 1} of {len(order)}** {name}")


def show_downloads(
    workspace: Workspace, batch: Batch, decisions: Sequence[Decision], *, stem: str = "kindred"
) -> None:
    """The same records as the command line gives, made when asked for."""
    with st.container(horizontal=True, width="content", gap="xsmall"):
        for name, label in (("csv", "CSV"), ("parquet", "Parquet"), ("json", "JSON lines")):
            st.download_button(
                label,
                data=_download(workspace, batch, decisions, name),
                file_name=f"{stem}-{batch.digest[:8]}.{_SUFFIX[name]}",
                mime=_MIME[name],
                icon=":material/download:",
                on_click="ignore",
                key=f"download-{name}",
            )


def _download(
    workspace: Workspace, batch: Batch, decisions: Sequence[Decision], name: str
) -> Callable[[], bytes]:
    def write() -> bytes:
        records = []
        if batch.inspection is not None:
            for row, (image, decision) in enumerate(zip(batch.images, decisions, strict=True)):
                influences = workspace.explain(batch.inspection.activations, row)
                records.append(
                    image_record(workspace, image, batch.inspection, row, decision, influences)
                )
        records += [refused_record(refused) for refused in batch.refused]
        return WRITERS[name](records)

    return write


def _select_from_table(key: str, order: Sequence[int]) -> None:
    cells = st.session_state[key]["selection"]["cells"]
    if cells and cells[0][0] < len(order):
        session().selected = order[cells[0][0]]


def _group_name(cluster: int) -> str:
    return "" if cluster < 0 else f"Group {cluster + 1}"
