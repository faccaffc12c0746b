"""The line at the top of every page."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from app.locations import DEMO, workspace_names, workspace_path
from app.manifest import WorkspaceError
from app.web.resources import open_workspace
from app.web.state import session
from app.web.wording import plain
from app.workspace import Workspace


@contextmanager
def header() -> Iterator[Workspace]:
    """Name, workspace and device; what is drawn inside stands beside them."""
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    ):
        st.header("Kindred", anchor=False, width="content")
        with st.container(
            horizontal=True, width="content", vertical_alignment="center", gap="medium"
        ):
            workspace = choose_workspace()
            on_gpu = workspace.classifier.device.type == "cuda"
            st.badge(
                "GPU" if on_gpu else "CPU",
                icon=":material/memory:",
                color="gray",
                help="The device that the classifier runs on.",
            )
            yield workspace
    st.caption(plain(workspace.manifest.about or workspace.manifest.name))


def choose_workspace() -> Workspace:
    """The workspace named at start, or another one picked here."""
    started_with = os.environ.get("KINDRED_WORKSPACE", DEMO)
    names = list(dict.fromkeys([started_with, *workspace_names()]))
    name = started_with
    if len(names) > 1:
        name = st.selectbox(
            "Workspace", names, label_visibility="collapsed", key="workspace",
            bind="query-params", on_change=session().clear,
        )  # fmt: skip
    try:
        return open_workspace(str(workspace_path(name)))
    except WorkspaceError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()
