"""What was drawn around on the map: pictures, and what can be done with them."""

import numpy as np
import streamlit as st

from app.map_layers import VERDICTS, Dots, Layer
from app.map_selection import Origins, Summary, selection_records, summarise, tellest_first
from app.records import Record, to_csv
from app.web.inbox_pages import show_keep
from app.web.job import Batch
from app.web.map_data import thumbnails
from app.web.map_naming import show_naming
from app.web.pictures import enlarged
from app.web.wording import VERDICT_SIGN, plain

SHOWN = 36
_SIDE = 72
_FEW, _HEIGHT = 12, 400
_TAGGED = "map-tagged"
_OF = {
    Layer.TRAINING: "training images",
    Layer.NORMAL: "normal but flagged",
    Layer.UPLOADS: "yours",
    Layer.INBOX: "in the inbox",
}


def show_selection(
    origins: Origins, dots: Dots, rows: np.ndarray, batch: Batch | None, level: float
) -> None:
    """The sentence, the pictures and the actions."""
    st.markdown(selection_sentence(summarise(dots, rows)))
    _show_pictures(origins, dots, rows)
    _show_actions(origins, dots, rows)
    show_naming(origins, dots, rows)
    if batch is not None and dots.of_layer(Layer.UPLOADS)[rows].any():
        st.caption(
            "Some are yours. Into the inbox go all of your batch that are flagged at "
            f"{level:.0%}, not a part picked by hand: a new class is proven by how many of all "
            "inspected images fall into one place."
        )
        show_keep(origins.workspace, batch, level)


def selection_sentence(found: Summary) -> str:
    """As Markdown: "27 selected, 4 flagged, 3 classes"."""
    classes = f"{found.classes:,} class{'es' if found.classes != 1 else ''}"
    layers = ", ".join(f"{count:,} {_OF[layer]}" for layer, count in found.layers.items())
    return f"**{found.images:,} selected, {found.flagged:,} flagged, {classes}**: {layers}."


def tags(key: str) -> dict[str, Record]:
    """Records of the images tagged in this session, of a workspace by its key; by their ids."""
    kept: dict[str, dict[str, Record]] = st.session_state.setdefault(_TAGGED, {})
    return kept.setdefault(key, {})


def show_tags(key: str) -> None:
    """What was tagged in this session, to be taken away."""
    tagged = tags(key)
    if not tagged:
        return
    names, counts = np.unique([record["tag"] for record in tagged.values()], return_counts=True)
    said = ", ".join(f"**{plain(n)}** {c:,}" for n, c in zip(names, counts, strict=True))
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"Tagged: {said}", width="content")
        st.download_button(
            "Tagged, CSV", data=lambda: to_csv(list(tagged.values())), file_name="map-tagged.csv",
            mime="text/csv", icon=":material/download:", on_click="ignore", key="map-tagged-csv",
        )  # fmt: skip
    st.caption("Tags last as long as this browser tab; take the table away to keep them.")


def _show_pictures(origins: Origins, dots: Dots, rows: np.ndarray) -> None:
    shown = tellest_first(dots, rows)[:SHOWN].tolist()
    found, tagged = thumbnails(origins, dots, shown), tags(origins.workspace.key)
    with st.container(height=_HEIGHT if len(shown) > _FEW else "content", border=False):
        grid = st.grid("auto", min_column_width=_SIDE + 16, gap=("small", "xsmall"))
    for row in shown:
        name = origins.workspace.classes[dots.classes[row]]
        with grid.cell():
            if row in found:
                st.image(enlarged(found[row], _SIDE), width=_SIDE, alt=name)
            record = tagged.get(origins.known_by(dots, row)) if tagged else None
            st.caption(_caption(dots, row, name, record))
    if len(shown) < len(rows):
        st.caption(
            f"Showing {len(shown):,} of {len(rows):,}: the oddest first, by p-value, then training "
            "images, those first to which the model hardly gives their label."
        )


def _caption(dots: Dots, row: int, name: str, tagged: Record | None) -> str:
    """Class, verdict and tag, as Markdown."""
    parts = [plain(name)]
    if (place := int(dots.verdicts[row])) >= 0:
        verdict = VERDICTS[place]
        parts.append(f"{VERDICT_SIGN[verdict]} {verdict}")
    if tagged is not None:
        parts.append(f"*{plain(tagged['tag'])}*")
    return "  \n".join(parts)


def _show_actions(origins: Origins, dots: Dots, rows: np.ndarray) -> None:
    """Tag them, take them away as a table."""
    key = origins.workspace.key
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.text_input("Tag", key="map-tag", max_chars=40, width=200,
                             placeholder="Any word")  # fmt: skip
        st.button(
            f"Tag these {len(rows):,}", icon=":material/label:", key="map-tag-add",
            disabled=not name.strip(), on_click=_tag, args=(origins, dots, rows, name.strip()),
        )  # fmt: skip
        if tags(key):
            st.button(
                "Remove their tags", icon=":material/label_off:", key="map-tag-remove",
                on_click=_untag, args=(origins, dots, rows),
            )  # fmt: skip
        st.download_button(
            "Selection, CSV",
            data=lambda: to_csv(selection_records(origins, dots, rows, _names(key))),
            file_name="map-selection.csv", mime="text/csv", icon=":material/download:",
            on_click="ignore", key="map-selection-csv",
        )  # fmt: skip


def _names(key: str) -> dict[str, str]:
    return {known_by: record["tag"] for known_by, record in tags(key).items()}


def _tag(origins: Origins, dots: Dots, rows: np.ndarray, name: str) -> None:
    tagged = tags(origins.workspace.key)
    for record in selection_records(origins, dots, rows, {}):
        tagged[record["id"]] = record | {"tag": name}


def _untag(origins: Origins, dots: Dots, rows: np.ndarray) -> None:
    tagged = tags(origins.workspace.key)
    for row in rows.tolist():
        tagged.pop(origins.known_by(dots, row), None)
