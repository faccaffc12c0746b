"""Two strategies on one recording, each run to its end."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from app.watch_comparison import Outcome, run_to_end
from app.watch_contents import calibration_of
from app.watch_scale import Scale
from app.watch_scenario import Recording
from app.watching import Watch
from app.web.watch_charts import compared_misses, compared_thresholds
from app.web.watch_wording import STRATEGY_NAME
from app.workspace import Workspace
from ood.monitoring.settings import Strategy

_AT_ONCE = 250


def show_strategies(workspace: Workspace, watch: Watch, recording: Recording) -> None:
    """Choose two; a button runs both, and what came of them is shown."""
    with st.expander("Compare two strategies on this recording", icon=":material/balance:"):
        own = watch.settings.strategy
        other = Strategy.FIXED if own is not Strategy.FIXED else Strategy.MARKET
        grid = st.grid("auto", min_column_width=250)
        chosen = []
        for number, default in enumerate((own, other)):
            with grid.cell():
                chosen.append(
                    st.selectbox(
                        ("This one", "Beside this one")[number],
                        list(Strategy),
                        index=list(Strategy).index(default),
                        key=f"compare-{number}",
                        format_func=STRATEGY_NAME.__getitem__,
                    )
                )
        key = f"{workspace.key} {watch.name} {chosen}"
        if st.button("Run both to the end", icon=":material/fast_forward:", key="compare-run"):
            st.session_state["compared"] = key
        if st.session_state.get("compared") != key:
            st.caption(
                "Both get the same images and the same answers, as the recording knows them, 40 "
                "images later; all other settings are those of this stream."
            )
            return
        scores = _scores(workspace.key, watch.name, workspace, recording)
        outcomes = [
            _run(workspace.key, watch.name, strategy, watch, calibration_of(workspace), scores,
                 recording.unknown)
            for strategy in chosen
        ]  # fmt: skip
        _show_outcomes(outcomes, recording, Scale.of(watch.settings, calibration_of(workspace)))


def _show_outcomes(outcomes: Sequence[Outcome], recording: Recording, scale: Scale) -> None:
    unknown = recording.unknown
    table = pd.DataFrame(
        {
            "Strategy": [STRATEGY_NAME[o.settings.strategy] for o in outcomes],
            "Slipped through": [np.mean(~o.flagged[unknown]) for o in outcomes],
            "Known flagged": [np.mean(o.flagged[~unknown]) for o in outcomes],
            "Asked": [o.asked for o in outcomes],
            "Certified at": [o.certified_at or None for o in outcomes],
            "Alarms": [
                ", ".join(f"{a.kind} at {a.item:,}" for a in o.alarms) or "none" for o in outcomes
            ],
        }
    )
    share = st.column_config.NumberColumn(format="percent")
    st.dataframe(
        table, hide_index=True, key="compare-table", alt="What came of both strategies",
        column_config={"Slipped through": share, "Known flagged": share},
    )  # fmt: skip
    grid = st.grid("auto", min_column_width=520, gap="large")
    with grid.cell():
        st.markdown("#### Thresholds")
        st.plotly_chart(
            compared_thresholds(outcomes, scale), key="compare-thresholds",
            config={"displayModeBar": False}, alt="Both thresholds over time",
        )  # fmt: skip
    with grid.cell():
        st.markdown("#### Unknown images that slipped through, in truth")
        st.plotly_chart(
            compared_misses(outcomes), key="compare-misses", config={"displayModeBar": False},
            alt="Share of unknown images accepted, of those among the last 500 images",
        )  # fmt: skip


@st.cache_data(max_entries=8, show_spinner="Looking at all images of the recording ...")
def _scores(key: str, name: str, _workspace: Workspace, _recording: Recording) -> np.ndarray:
    """(N,) of a recording's images."""
    detector, found = _workspace.manifest.detector, []
    for start in range(0, len(_recording), _AT_ONCE):
        pixels = _recording.pixels[start : start + _AT_ONCE, None]
        found.append(_workspace.inspect(pixels).scores[detector])
    return np.concatenate(found)


@st.cache_data(max_entries=32, show_spinner="Running a strategy to the end ...")
def _run(
    key: str, name: str, strategy: Strategy, _watch: Watch, _calibration: np.ndarray,
    _scores: np.ndarray, _unknown: np.ndarray,
) -> Outcome:  # fmt: skip
    settings = replace(_watch.settings, strategy=strategy)
    return run_to_end(settings, _calibration, _scores, _unknown)
