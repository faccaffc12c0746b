"""One group of flagged images: what speaks for a class, and its naming."""

import numpy as np
import pandas as pd
import streamlit as st

from app.discovery import Candidate
from app.inbox_contents import Stream
from app.new_class_replay import FALSE_ALARM
from app.web.novelty_evidence import show_evidence
from app.web.novelty_naming import show_naming
from app.web.wording import plain
from app.workspace import Workspace
from ood.clusters import STABLE

_LOOK = {
    "New class": (":material/new_releases:", "blue"),
    "Not proven": (":material/hourglass_top:", "gray"),
    "More": (":material/library_add:", "green"),
}


@st.fragment
def show_candidate(workspace: Workspace, stream: Stream, candidate: Candidate, number: int) -> None:
    """The sentence, the pictures with a tick each, a name, and a button."""
    with st.container(border=True):
        badge, words = verdict(candidate)
        icon, colour = _LOOK[badge.partition(" of ")[0]]
        st.badge(plain(badge), icon=icon, color=colour)  # type: ignore[arg-type]
        st.markdown(f"**Group {number}.** {words}")
        calls = pd.Series(stream.predicted[candidate.rows]).value_counts()
        said = ", ".join(f"{n:,} {plain(workspace.classes[c])}" for c, n in calls.head(3).items())
        st.caption(f"The classifier would have called them: {said}. {_firmness(candidate)}")
        show_evidence(workspace, candidate)
        show_naming(workspace, stream, candidate)


def verdict(candidate: Candidate) -> tuple[str, str]:
    """A badge and a sentence, as Markdown."""
    count = f"{len(candidate.rows):,} images look alike"
    if candidate.known_as:
        return (
            f"More of {candidate.known_as}",
            f"{count}. Most of them are recognised as {plain(candidate.known_as)}, which was named "
            "here: learn them under the same name to add them to it.",
        )
    if candidate.proven:
        return (
            "New class",
            f"{count}. {candidate.core:,} of them, listed first, lie where later images fell too "
            f"often to be of the known classes: chance of a false alarm below {FALSE_ALARM:.0%}.",
        )
    return (
        "Not proven",
        f"{count}. Whether they are a class is not proven yet: known images that are odd in one "
        "way form groups too. Later images decide, as far as they are collected whatever they "
        "show.",
    )


def _firmness(candidate: Candidate) -> str:
    if np.isnan(candidate.stability):
        return "It is the only group: all that wait."
    if candidate.stability >= STABLE:
        return "The group stays the same when some of the images are left out."
    return "The group changes when some of the images are left out: look at it closely."
