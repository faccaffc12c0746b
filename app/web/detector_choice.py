"""Which detector decides in a workspace, and why."""

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from app.comparison import Contender
from app.web.detector_table import starred
from app.workspace import Workspace
from ood.selection import choose_default


def show_choice(workspace: Workspace, among: Mapping[str, Contender]) -> None:
    """Which detector decides in this workspace, and why."""
    chosen_by, decides = workspace.manifest.chosen_by, among[workspace.manifest.detector]
    by_rule = choose_default(chosen_by) == workspace.manifest.detector
    st.markdown(
        f"**{decides.title}** decides in this workspace. "
        + (
            "It was chosen on outliers made of held-out images, never on yours."
            if by_rule
            else "Whoever prepared the workspace chose it, not the rule below."
        )
    )
    with st.expander("How it was chosen"):
        st.caption(
            "Each detector's AUROC on blended, halved, shuffled and damaged held-out images, "
            "averaged. The best combination of four decides, unless a single detector beats it by "
            "more than 0.01: made-up outliers say little about real ones, and a combination loses "
            "least when they mislead. ODIN, which needs passes of its own, does not compete."
        )
        order = sorted(chosen_by, key=lambda name: -chosen_by[name])
        st.dataframe(
            pd.DataFrame(
                {
                    "Detector": [starred(among[name]) for name in order],
                    "Mean AUROC": [chosen_by[name] for name in order],
                    "Fitted in": [among[name].fit_s for name in order],
                }
            ),
            hide_index=True,
            height=300,
            column_config={
                "Mean AUROC": st.column_config.NumberColumn(format="%.3f"),
                "Fitted in": st.column_config.NumberColumn(
                    format="%.2f s", help="Of a combination: its four members together."
                ),
            },
        )
