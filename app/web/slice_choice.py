"""Which calibration images a training image is held against."""

import numpy as np
import streamlit as st

from app.slices import slice_of, slices
from app.web.state import session
from app.workspace import Workspace
from explain.effects import Slice, removal_effects
from explain.influence import HeadInfluence


def choose_slice(workspace: Workspace) -> tuple[str, Slice]:
    """Name and images of the slice chosen."""
    found = slices(workspace, session().metadata.get(workspace.key, {}))
    chosen = st.selectbox("Which images does it hurt?", list(found), key="slice")
    return chosen, slice_of(workspace, found[chosen])


@st.cache_data(max_entries=64, show_spinner="Weighing training images ...")
def effects_on(key: str, digest: str, _on: Slice, _workspace: Workspace) -> np.ndarray:
    """(N,) what leaving each training image out does to the mean loss of the slice."""
    assert isinstance(_workspace.influence, HeadInfluence)  # asked only where there are refits
    return removal_effects(_workspace.influence, _on)
