"""Groups among the flagged images of the inbox, found once for all who look."""

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock

import numpy as np
import streamlit as st

from app.discovery import Candidate, Grouping, find_candidates
from app.inbox_contents import Stream
from app.learning import LearnedClasses
from app.new_class_replay import Replayed, replay
from app.web.inbox_pages import named_classes
from app.workspace import Workspace

_REMEMBERED = 8
_REPLAYED = 0.5
_TESTING = "Putting groups to the test ..."


@dataclass(frozen=True)
class _Found:
    """What was computed last: by the state of the inbox, and of each workspace."""

    candidates: OrderedDict[str, list[Candidate]] = field(default_factory=OrderedDict)
    replayed: dict[str, Replayed] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


@st.cache_resource
def _found() -> _Found:
    return _Found()


def waiting_rows(stream: Stream, taught: set[str]) -> np.ndarray:
    """(N,) rows of the stream that are neither dismissed nor among the pictures of a class."""
    return np.flatnonzero(~stream.dismissed & ~np.isin(stream.sha256, sorted(taught)))


def version(stream: Stream, rows: np.ndarray) -> str:
    """What caches know these rows of the inbox by."""
    digest = sha256(stream.ids.tobytes() + rows.tobytes() + stream.passes.tobytes())
    return digest.hexdigest()


def candidates(
    workspace: Workspace, stream: Stream, rows: np.ndarray, grouping: Grouping
) -> list[Candidate]:
    """Groups among these rows of the stream, with a bar while they are looked for."""
    learned, found = named_classes(workspace), _found()
    known = learned.names if learned is not None else ()
    key = f"{workspace.key} {version(stream, rows)} {known} {grouping}"
    with found.lock:  # whoever comes second waits, and finds what the first has found
        if (groups := found.candidates.get(key)) is None:
            groups = _look(workspace, stream, rows, grouping, learned)
            found.candidates[key] = groups
            while len(found.candidates) > _REMEMBERED:
                found.candidates.popitem(last=False)
    return groups


def _look(
    workspace: Workspace, stream: Stream, rows: np.ndarray, grouping: Grouping,
    learned: LearnedClasses | None,
) -> list[Candidate]:  # fmt: skip
    replayed = _found().replayed
    bar = st.progress(0.0, _TESTING)
    replayed[workspace.key] = replay(
        workspace, stream, replayed.get(workspace.key),
        lambda share: bar.progress(_REPLAYED * share, _TESTING),
    )  # fmt: skip
    groups = find_candidates(
        workspace, stream, rows, replayed[workspace.key].monitor, learned, grouping,
        lambda share: bar.progress(_REPLAYED + (1 - _REPLAYED) * share, "Looking for groups ..."),
    )  # fmt: skip
    bar.empty()
    return groups
