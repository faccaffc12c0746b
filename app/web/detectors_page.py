"""The Detectors page: how well each separates known from unknown images, and at what cost."""

import streamlit as st

from app.web.detector_choice import show_choice
from app.web.detector_results import (
    compared_on,
    measured_contenders,
    show_agreement,
    show_downloads,
    show_scores,
)
from app.web.detector_sets import choose_set, own_session
from app.web.detector_table import show_comparison, show_outcome
from app.web.header import header

with header() as workspace:
    numbers = st.toggle(
        "Show the numbers",
        key="numbers",
        bind="query-params",
        help="Every measure with its 95% interval.",
    )
among = measured_contenders(workspace)
show_choice(workspace, among)
chosen = choose_set(workspace)
if chosen is not None:
    st.divider()
    state = own_session(workspace)
    compared = compared_on(workspace, among, chosen)
    with st.container(
        horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"
    ):
        show_outcome(compared, chosen)
        show_downloads(compared, chosen)
    show_comparison(compared, chosen, state, numbers=numbers)
    show_scores(workspace, compared, chosen, state)
    show_agreement(workspace, chosen)
