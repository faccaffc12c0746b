"""What the pages share of watched streams: the store, opened once, and which stream is shown."""

from collections.abc import Sequence

import streamlit as st

from app.watch_playing import played_by, plays_only
from app.watch_scenario import Recording, Scenario, plays_on, record
from app.watch_store import WatchStore
from app.watching import StreamInfo, Watch
from app.web.watch_turns import Turns
from app.workspace import Workspace

CHOSEN = "stream"
START = "Start a new one"


@st.cache_resource
def open_turns() -> Turns:
    """Who is shown which question, one for all sessions."""
    return Turns()


@st.cache_resource
def open_store() -> WatchStore:
    """The store, opened once for all sessions.

    Raises:
        StoreError: see `WatchStore.open`.
    """
    return WatchStore.open()


def open_watch(workspace: Workspace, number: int) -> Watch:
    """One stream, opened once for all sessions.

    Raises:
        StoreError, ValueError: see `Watch.open`.
    """
    return _watch(workspace.key, number, workspace)


@st.cache_resource(max_entries=16, show_spinner="Going through the stream again ...")
def _watch(key: str, number: int, _workspace: Workspace) -> Watch:
    return Watch.open(open_store(), _workspace, number)


@st.cache_resource(max_entries=8, show_spinner="Opening the recording ...")
def open_recording(scenario: Scenario, seed: int) -> Recording:
    """A recording, drawn once for all sessions."""
    return record(scenario, seed)


def recording_of(workspace: Workspace, watch: Watch) -> Recording | None:
    """What a stream plays; None where images come from elsewhere, whatever its name.

    Raises:
        StoreError: see `Watch`.
    """
    played = played_by(watch.name)
    if played is None or not plays_on(workspace) or not plays_only(watch, played[0]):
        return None
    return open_recording(*played)


def choose_stream(streams: Sequence[StreamInfo]) -> StreamInfo | None:
    """The stream picked, that of the address or the newest at first; None to start one."""
    if not streams:
        return None
    newest_first = list(streams)[::-1]
    names = [stream.name for stream in newest_first]
    options = [*names, START]
    # Not bound to the address: a bound choice falls back when a new stream joins the options.
    for wanted in (st.session_state.get(CHOSEN), st.query_params.get(CHOSEN), names[0]):
        if wanted in options:
            st.session_state[CHOSEN] = wanted
            break
    chosen = st.selectbox("Stream", options, key=CHOSEN, width=420)
    st.query_params[CHOSEN] = chosen
    return next((stream for stream in newest_first if stream.name == chosen), None)
