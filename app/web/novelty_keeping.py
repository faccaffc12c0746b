"""What the inbox keeps, and for how long: restoring and deleting."""

from collections.abc import Callable

import streamlit as st

from app.inbox import Inbox, identity
from app.inbox_contents import Stream
from app.inbox_tables import InboxError
from app.workspace import Workspace

_OLDEST = 3_650


def show_keeping(workspace: Workspace, inbox: Inbox, stream: Stream) -> None:
    """Dismissed images back into the groups; images deleted by age, or all of them."""
    if failed := st.session_state.pop("keeping-failed", ""):
        st.error(failed, icon=":material/error:")
    if not stream.inspected:
        return
    dismissed = stream.ids[stream.dismissed]
    with st.expander("What is kept, and deleting it", icon=":material/inbox:"):
        st.caption(
            "Of each flagged image a small copy without EXIF is kept, with its file name, its "
            "p-value and what the network made of it; of all others only their number. Nothing is "
            "deleted by itself."
        )
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            st.button(
                f"Take back the {len(dismissed):,} dismissed ones", icon=":material/undo:",
                disabled=not len(dismissed), on_click=_do, args=(inbox.restore, dismissed),
            )  # fmt: skip
            days = st.number_input("Older than, in days", 1, _OLDEST, 90, width=160)
            st.button(
                "Delete what is older", icon=":material/auto_delete:", on_click=_do,
                args=(inbox.delete_older, identity(workspace), days),
                help="Pictures that teach a class stay until it is undone. The test for new "
                "classes then starts anew with what is left.",
            )  # fmt: skip
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
            sure = st.checkbox("Yes, delete all that is kept of this workspace, classes too")
            st.button(
                "Delete everything", icon=":material/delete_forever:", disabled=not sure,
                on_click=_do, args=(inbox.delete_workspace, identity(workspace)),
            )  # fmt: skip


def _do(change: Callable[..., None], *arguments: object) -> None:
    try:
        change(*arguments)
    except InboxError as error:
        st.session_state["keeping-failed"] = str(error)
