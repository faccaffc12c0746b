"""Groups among the flagged images of the inbox, found once for all who look."""

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import streamlit as st

from app.discovery import Candidate, Grouping, find_candidates
from app.inbox_contents import Stream
from app.new_class_replay import replay
from app.workspace import Workspace
from ood.new_class_monitor import NewClassMonitor

_REMEMBERED = 8
_REPLAYED = 0.5


@dataclass(frozen=True)
class _Found:
    """What was computed last: by the state of the inbox, and of each workspace."""

    candidates: OrderedDict[str, list[Candidate]] = field(default_factory=OrderedDict)
    monitors: dict[str, NewClassMonitor] = field(default_factory=dict)


@st.cache_resource
def _found() -> _Found:
    return _Found()


def waiting_rows(stream: Stream, taught: set[str]) -> np.ndarray:
    """(N,) rows of the stream that are neither dismissed nor among the pictures of a class."""
    return np.flatnonzero(~stream.dismissed & ~np.isin(stream.sha256, sorted(taught)))


def candidates(
    workspace: Workspace, stream: Stream, rows: np.ndarray, grouping: Grouping
) -> list[Candidate]:
    """Groups among these rows of the stream, with a bar while they are looked for."""
    found = _found()
    version = sha256(stream.ids.tobytes() + rows.tobytes()).hexdigest()
    key = f"{workspace.key} {version} {stream.inspected} {grouping}"
    if key not in found.candidates:
        bar = st.progress(0.0, "Putting groups to the test ...")
        monitor = found.monitors[workspace.key] = replay(
            workspace,
            stream,
            found.monitors.get(workspace.key),
            lambda share: bar.progress(_REPLAYED * share, "Putting groups to the test ..."),
        )
        found.candidates[key] = find_candidates(
            workspace, stream, rows, monitor, grouping,
            lambda share: bar.progress(
                _REPLAYED + (1 - _REPLAYED) * share, "Looking for groups ..."
            ),
        )  # fmt: skip
        bar.empty()
        while len(found.candidates) > _REMEMBERED:
            found.candidates.popitem(last=False)
    return found.candidates[key]
