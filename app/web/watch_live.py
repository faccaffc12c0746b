"""A stream as it stands now: alarms, what is known, questions, charts."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app.watch_contents import calibration_of
from app.watch_history import History
from app.watch_playing import answer_truly, play
from app.watch_scale import Scale
from app.watch_scenario import Recording
from app.watch_tables import StoreError
from app.watching import RefusedFile, Watch
from app.web.watch_charts import flagged_chart, price_strip, threshold_chart, wealth_chart
from app.web.watch_queue import show_queue
from app.web.watch_start import PLAYING
from app.web.watch_wording import (
    Standing,
    alarm_sentence,
    banner_sentence,
    misses_standing,
    percent,
    standing_alarms,
    threshold_standing,
)
from app.workspace import Workspace
from ood.monitoring.report import Alarm, Report

_TICK_S, _LOOK_S = 1.0, 5.0
_SPEEDS = (5, 10, 20, 50, 100)
_REFUSED = 20
_CHART = {"displayModeBar": False}


def show_live(workspace: Workspace, watch: Watch, recording: Recording | None, by: str) -> None:
    """Controls of a recording, then everything that changes while the stream goes on."""
    speed, truly = 0, False
    if recording is not None:
        speed, truly = _show_controls(watch, recording)
    every = _TICK_S if speed else _LOOK_S
    st.fragment(_show_now, run_every=every)(workspace, watch, recording, speed, truly, by)


def _show_controls(watch: Watch, recording: Recording) -> tuple[int, bool]:
    """Images a second, 0 in a pause; and whether the recording answers."""
    playing = st.session_state.get(PLAYING) == watch.name
    over = watch.report().items >= len(recording)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        st.button(
            "Pause" if playing and not over else "Play",
            icon=":material/pause:" if playing and not over else ":material/play_arrow:",
            key="watch-play", disabled=over, on_click=_switch, args=(watch.name,),
            help="A recording goes on while a page that plays it is open.",
        )  # fmt: skip
        speed = st.select_slider(
            "Images a second", _SPEEDS, 20, key="watch-speed", width=240, disabled=over
        )
        truly = st.toggle(
            "Answer for me", True, key="watch-truly",
            help="The recording knows what its images are, and answers 40 images later.",
        )  # fmt: skip
    return (int(speed) if playing and not over else 0), truly


def _switch(name: str) -> None:
    st.session_state[PLAYING] = "" if st.session_state.get(PLAYING) == name else name


def _show_now(
    workspace: Workspace, watch: Watch, recording: Recording | None, speed: int, truly: bool,
    by: str,
) -> None:  # fmt: skip
    # Whoever only looks on answers nothing; and a tick that was under way when somebody pressed
    # Pause still has the speed of before.
    playing = st.session_state.get(PLAYING) == watch.name
    try:
        if recording is not None and playing:
            if speed:
                play(workspace, watch, recording, speed)
            if truly:
                answer_truly(watch, recording)
        report = watch.report()
        _show_standing(workspace, watch, report, recording)
        _show_more(workspace, watch, report, by)
    except StoreError as error:
        st.error(str(error), icon=":material/error:")
        return
    if recording is not None and speed and report.items >= len(recording):
        st.rerun()  # its end: nothing ticks any more


def _show_standing(
    workspace: Workspace, watch: Watch, report: Report, recording: Recording | None
) -> None:
    for alarm in standing_alarms(watch.alarms(), report):
        said = banner_sentence(alarm, report, watch.settings)
        st.error(f"**Alarm.** {said}", icon=":material/warning:")
    scale = open_scale(workspace, watch)
    with st.container(border=True):
        _show_large(misses_standing(report, watch.settings, scale))
        if recording is not None:
            now = recording.phase(max(1, report.items))
            end = ", at its end" if report.items >= len(recording) else f": {now}"
            st.caption(f"The recording is at image {report.items:,} of {len(recording):,}{end}.")


def _show_large(standing: Standing) -> None:
    st.markdown(f"### :{standing.colour}[:material/{standing.icon}:] {standing.words}")
    st.markdown(standing.more)


def open_scale(workspace: Workspace, watch: Watch) -> Scale:
    """The thresholds of a stream and the scores that they are quantiles of."""
    return Scale.of(watch.settings, calibration_of(workspace))


def _show_more(workspace: Workspace, watch: Watch, report: Report, by: str) -> None:
    """Counts, the question that waits longest, and charts, side by side where there is room."""
    scale, history = open_scale(workspace, watch), watch.history()
    _show_counts(report, history)
    show_queue(workspace, watch, report, by)
    if not report.items:
        return
    grid = st.grid("auto", min_column_width=520, gap="large")
    with grid.cell():
        _show_threshold(watch, report, history, scale)
    with grid.cell():
        _show_flagged(history)
    with grid.cell():
        _show_prices(history, scale)
    with grid.cell():
        _show_wealth(watch, report, scale)
    _show_alarms(watch.alarms(), watch)
    _show_refused(watch.refused(_REFUSED))


def _show_counts(report: Report, history: History) -> None:
    grid = st.grid("auto", min_column_width=120, gap="small")
    share = percent(float(history.flagged_share[-1])) if report.items else "-"
    for label, value, words in (
        ("Images", f"{report.items:,}", "So far."),
        ("Flagged", share, "Of the last 500 images."),
        ("Answered", f"{report.answered:,}", "Questions answered so far."),
        ("Waiting", f"{report.asked - report.answered:,}", "Questions without an answer."),
        ("Checks", percent(report.audit_rate), "The chance that you are asked about the next "
         "accepted image. 0% is a pause: the last 1,000 images have spent the questions."),
    ):  # fmt: skip
        with grid.cell():
            st.metric(label, value, help=words)


def _show_threshold(watch: Watch, report: Report, history: History, scale: Scale) -> None:
    standing = threshold_standing(report, watch.settings, scale)
    st.markdown("#### The threshold")
    st.markdown(f":material/{standing.icon}: **{standing.words}.** {standing.more}")
    _draw(threshold_chart(history, scale), "threshold", "The threshold in force over time")


def _show_flagged(history: History) -> None:
    st.markdown("#### What is flagged and asked about")
    st.caption(
        "Flagged: of the last 500 images. You are asked about every flagged image, and about this "
        "share of the accepted ones, by chance: more when it looks bad, fewer when it is certified."
    )
    _draw(flagged_chart(history), "flagged", "Share of images that was flagged, over time")


def _show_prices(history: History, scale: Scale) -> None:
    st.markdown("#### What the market bets on")
    if pd.isna(history.prices[-1]).any():
        st.caption("No market chooses this threshold.")
        return
    st.caption("Dark: thresholds that the market pays most for, since answers cost least there.")
    _draw(price_strip(history, scale), "prices", "Market prices over thresholds and time")


def _show_wealth(watch: Watch, report: Report, scale: Scale) -> None:
    limit = percent(watch.settings.miss_limit)
    st.markdown("#### The evidence at each threshold")
    st.caption(
        f"Two gamblers bet 1 at each threshold: that more than {limit} of unknown images slip "
        "through there, and that less does. Fair bets win nothing on average, so wealth is "
        "evidence. Shaded is what is proven: enough was won there and at all thresholds to its "
        "right (that more slips through), or to its left (that less does). A proof stands for a "
        "time, though its bets begin anew."
    )
    _draw(wealth_chart(report, scale), "wealth", "Wealth of the two bets at each threshold")


def _show_alarms(raised: Sequence[Alarm], watch: Watch) -> None:
    if not raised:
        return
    alarms = sorted(raised, key=lambda alarm: alarm.item)
    st.markdown("#### Alarms so far")
    table = pd.DataFrame(
        {
            "Noticed at image": [alarm.item for alarm in alarms],
            "About": [str(alarm.kind) for alarm in alarms],
            "What": [alarm_sentence(alarm, watch.settings) for alarm in alarms],
        }
    )
    st.dataframe(table, hide_index=True, key="watch-alarms", alt="Alarms, oldest first")


def _show_refused(files: Sequence[RefusedFile]) -> None:
    if not files:
        return
    st.markdown("#### Files that could not be inspected, latest first")
    rows = {"File": [file.name for file in files], "Why": [file.reason for file in files]}
    st.dataframe(rows, hide_index=True, key="watch-refused", alt="Refused files")


def _draw(figure: object, key: str, alt: str) -> None:
    st.plotly_chart(figure, key=f"watch-{key}", config=_CHART, alt=alt)
