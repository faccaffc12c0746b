"""What the pages share of the inbox: opened once, and the classes that were named."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from app.discovery import in_force, keep_flagged, learn
from app.inbox import Inbox, identity
from app.inbox_contents import NewClass
from app.inbox_tables import InboxError
from app.learning import LearnedClasses
from app.web.job import Batch
from app.web.state import session
from app.workspace import Workspace


@st.cache_resource
def open_inbox() -> Inbox:
    """The inbox, opened once for all sessions.

    Raises:
        InboxError: see `Inbox.open`.
    """
    return Inbox.open()


def named_classes(workspace: Workspace) -> LearnedClasses | None:
    """Learned from the classes in force; None where there are none or no inbox can be had."""
    try:
        classes = open_inbox().classes(identity(workspace))
    except InboxError:
        return None  # the Novelty page says why
    named = in_force(classes)
    return _learned(workspace.key, members(named), workspace, named) if named else None


def members(named: Sequence[NewClass]) -> tuple[tuple[int, int], ...]:
    """What caches know classes in force by: images are only ever added to one."""
    return tuple((one.id, len(one.sha256)) for one in named)


@st.cache_resource(max_entries=8, show_spinner="Learning the named classes ...")
def _learned(
    key: str,
    numbers: tuple[tuple[int, int], ...],
    _workspace: Workspace,
    _named: Sequence[NewClass],
) -> LearnedClasses:
    return learn(_workspace, _named)


def recognised(workspace: Workspace, batch: Batch, level: float) -> list[str]:
    """For each image the named class that it belongs to; "" for none."""
    learned = named_classes(workspace)
    assert batch.inspection is not None  # asked of inspected images only
    if learned is None:
        return [""] * len(batch.images)
    features = np.asarray(batch.inspection.activations.features)
    places = learned.recognise(features, level)
    return [learned.names[place] if place >= 0 else "" for place in places]


def show_collecting() -> None:
    """The switch by which batches go into the inbox, whatever they will show."""
    session().collecting = st.toggle(
        "Collect what is flagged",
        value=session().collecting,
        key="collecting",
        help="From the next batch on, flagged images go into the inbox, where they show whether "
        "they are something new. Small pictures without EXIF are kept, and how many images were "
        "inspected. Only what is collected in this way, whatever it shows, is evidence.",
    )


def show_keep(workspace: Workspace, batch: Batch, level: float) -> None:
    """What is collected of a batch; or a button that puts its flagged images into the inbox."""
    own = session()
    if own.collects and own.collected != batch.digest:
        _keep(workspace, batch, level, counted=True)
        own.collected = batch.digest
    elif own.collects:
        st.badge("Collected", icon=":material/inbox:", color="gray")
    elif st.button(
        "Keep the flagged ones",
        icon=":material/inbox:",
        help="Puts them into the inbox, to be grouped and named. As they are kept for what they "
        "showed, they are no evidence for a new class: for that, switch on *Collect what is "
        "flagged* beforehand.",
    ):
        _keep(workspace, batch, level, counted=False)


def _keep(workspace: Workspace, batch: Batch, level: float, *, counted: bool) -> None:
    assert batch.inspection is not None  # asked of inspected images only
    try:
        added, count = keep_flagged(
            open_inbox(), workspace, batch.digest, batch.images, batch.inspection, level,
            counted=counted,
        )  # fmt: skip
    except InboxError as error:
        st.error(f"They could not be kept: {error}", icon=":material/error:")
        return
    if added:
        st.success(
            f"{count:,} flagged images of {len(batch.images):,} are in the inbox. Open *Novelty* "
            "to see what they are.",
            icon=":material/inbox:",
        )
    else:
        st.info("This batch is in the inbox already.", icon=":material/inbox:")
