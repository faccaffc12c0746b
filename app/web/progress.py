"""How far a batch is."""

import streamlit as st

from app.web.state import Session


@st.fragment(run_every="500ms")
def show_progress(state: Session) -> None:
    """A bar; the page is drawn anew at its end."""
    job = state.job
    if job is None or not job.running:
        st.rerun()
    else:
        job.watch()
        share = min(job.done / max(job.total, 1), 1.0)
        st.progress(share, f"Inspecting: {job.done:,} of {job.total:,}")
