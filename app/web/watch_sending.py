"""A batch that was inspected, sent on to a watched stream."""

import streamlit as st

from app.watch_playing import of_source, played_by
from app.watch_tables import StoreError
from app.watching import RefusedFile, StreamInfo, Watch, arrivals_of, with_own_seed
from app.web.job import Batch
from app.web.watch_streams import open_store, open_watch
from app.web.wording import plain
from app.workspace import Workspace
from models.images import ImageRefused
from ood.monitoring.settings import Settings

_NEW = "Uploads"


def show_send(workspace: Workspace, batch: Batch) -> None:
    """A button that lets the images of a batch come along a stream, one that is picked."""
    popover = st.popover(
        "Send to the watch", icon=":material/monitoring:", on_change="rerun", key="send"
    )
    if not popover.open:
        return
    with popover:
        try:
            streams = [s for s in Watch.streams(open_store(), workspace) if not played_by(s.name)]
            names = [stream.name for stream in streams] or [_NEW]
            name = st.selectbox("Stream", names[::-1], key="send-to")
            st.caption(
                "The images come along it in the order in which they were dropped. Small pictures "
                "without EXIF are kept of those that you are asked about."
            )
            if st.button(f"Send {len(batch.images):,}", icon=":material/send:", key="send-now"):
                _send(workspace, batch, name, streams)
        except (StoreError, ValueError) as error:
            st.error(f"They could not be sent: {error}", icon=":material/error:")


def _send(workspace: Workspace, batch: Batch, name: str, streams: list[StreamInfo]) -> None:
    assert batch.inspection is not None  # asked of inspected images only
    number = next((s.number for s in streams if s.name == name), None)
    if number is None:
        number = Watch.create(open_store(), workspace, name, with_own_seed(Settings())).number
    arrivals = arrivals_of(workspace, batch.images, batch.inspection)
    refused = [
        RefusedFile(file.name, file.reason, f"batch {batch.digest} refused {n}")
        for n, file in enumerate(batch.refused)
    ]
    try:
        watch = open_watch(workspace, number)
        decided = watch.arrive(of_source(arrivals, f"batch {batch.digest}"), refused)
    except ImageRefused as error:
        st.error(f"They could not be sent: {error}", icon=":material/error:")
        return
    if not decided:
        st.info("This batch came along it already.", icon=":material/info:")
        return
    asked = sum(one.asked for one in decided)
    st.success(
        f"{len(decided):,} images came along *{plain(name)}*, {sum(d.flagged for d in decided):,} "
        f"are flagged. Open *Watch* to answer {asked:,} questions.",
        icon=":material/check_circle:",
    )
