"""The screens: what Streamlit draws, from what a workspace says."""
