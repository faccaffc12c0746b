"""What Streamlit runs; start it with `python -m app`."""

import streamlit as st

st.set_page_config(page_title="Kindred", page_icon=":material/fingerprint:", layout="wide")
st.navigation(
    [
        st.Page("web/inspect_page.py", title="Inspect", icon=":material/search:", default=True),
        st.Page(
            "web/detectors_page.py",
            title="Detectors",
            icon=":material/leaderboard:",
            url_path="detectors",
        ),
        st.Page(
            "web/training_page.py",
            title="Training set",
            icon=":material/photo_library:",
            url_path="training",
        ),
        st.Page(
            "web/novelty_page.py",
            title="Novelty",
            icon=":material/new_releases:",
            url_path="novelty",
        ),
        st.Page("web/map_page.py", title="Map", icon=":material/scatter_plot:", url_path="map"),
        st.Page("web/watch_page.py", title="Watch", icon=":material/monitoring:", url_path="watch"),
    ],
    position="top",
).run()
