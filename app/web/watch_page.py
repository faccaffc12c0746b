"""The Watch page: a stream of images, thresholds that follow it, and what is proven of them."""

import streamlit as st

from app.watch_tables import StoreError
from app.watching import Watch
from app.web.header import header
from app.web.watch_live import show_live
from app.web.watch_records import show_record
from app.web.watch_start import show_start
from app.web.watch_strategies import show_strategies
from app.web.watch_streams import choose_stream, open_store, open_watch, recording_of

with header() as workspace:
    by = st.text_input(
        "Your name", "me", key="reviewer", bind="query-params", max_chars=40, width=160,
        label_visibility="collapsed", help="Answers are kept under this name.",
    )  # fmt: skip
st.markdown("### Is the threshold still right?")
st.caption(
    "A threshold that was right for yesterday's images need not be for today's. Here it is chosen "
    "anew as images come, from answers of yours to a few questions; and tests, which hold however "
    "long you watch, say what is proven of it."
)
try:
    streams = Watch.streams(open_store(), workspace)
    chosen = choose_stream(streams)
    watch = open_watch(workspace, chosen.number) if chosen is not None else None
except (StoreError, ValueError) as error:
    st.error(str(error), icon=":material/error:")
    st.stop()
if watch is None:
    show_start(workspace, [stream.name for stream in streams])
else:
    try:
        recording = recording_of(workspace, watch)
        show_live(workspace, watch, recording, by)
        if recording is not None:
            show_strategies(workspace, watch, recording)
    except StoreError as error:
        st.error(str(error), icon=":material/error:")
show_record(watch)
