"""A stream's beginning: where images come from, and what is wanted."""

import shlex

import streamlit as st

from app.locations import workspace_path
from app.watch_playing import played_by, stream_name
from app.watch_scenario import PHASES, Scenario, plays_on
from app.watch_tables import StoreError
from app.watching import Watch, with_own_seed
from app.web.watch_streams import CHOSEN, open_store
from app.web.watch_wording import STRATEGY_MEANING, STRATEGY_NAME
from app.workspace import Workspace
from ood.monitoring.settings import Settings, Strategy

PLAYING = "watch-playing"
_SCENARIO, _UPLOADS, _FOLDER = "A recorded scenario", "Images you hand in", "A folder"
_FAILED = "watch-failed"
_SCENARIOS, _STRATEGIES = tuple(Scenario), tuple(Strategy)
_DEFAULT = Settings()
# Of the limit, what the market aims at, and what an accepted image is asked about: a recording of
# 3,000 images is short, and its answers cost nobody anything.
_AIM = 0.5
_FLOOR, _CEILING, _BUDGET = 0.3, 0.6, 700


def show_start(workspace: Workspace, names: list[str]) -> None:
    """A form; its button begins a stream, which is then shown.

    Args:
        workspace: whose stream it is.
        names: of the streams that there are.
    """
    st.markdown("#### Start to watch")
    source = st.segmented_control(
        "What is watched", [_SCENARIO, _UPLOADS, _FOLDER], default=_SCENARIO, required=True,
        key="watch-source",
    )  # fmt: skip
    if source == _FOLDER:
        _show_folder(workspace)
        return
    if source == _SCENARIO and not plays_on(workspace):
        st.info(
            "The recorded scenarios belong to the demo: they are made of clothes, and only its "
            "network knows eight kinds of them. Pick the workspace *fashion* above, or watch "
            "images of yours.",
            icon=":material/movie:",
        )
        return
    if source == _SCENARIO:
        scenario = st.selectbox("What happens", _SCENARIOS, key="watch-scenario", width=420)
        phases = (f"{phase.count:,} images: {phase.words}" for phase in PHASES[scenario])
        st.caption("; ".join(phases) + ".")
        name = stream_name(scenario, names)
    else:
        name = st.text_input(
            "Name of the stream", "Uploads", max_chars=64, width=420, key="watch-name"
        )
        st.caption("On *Inspect*, drop a batch of images and press *Send to the watch*.")
    settings = choose_settings(recorded=source == _SCENARIO)
    st.button(
        "Start", type="primary", icon=":material/play_arrow:", disabled=settings is None,
        key="watch-start", on_click=_start,
        args=(workspace, name, settings, source == _SCENARIO),
    )  # fmt: skip
    if failed := st.session_state.pop(_FAILED, ""):
        st.error(failed, icon=":material/error:")


def choose_settings(*, recorded: bool) -> Settings | None:
    """What is wanted, in plain words; None, said on the page, where it cannot be had."""
    grid = st.grid("auto", min_column_width=250, gap="medium")
    with grid.cell():
        miss = _percent(
            "Unknown images that may slip through", _DEFAULT.miss_limit, "watch-miss",
            "Of images of kinds that the network has never seen, this share may be accepted as "
            "known, and no more.",
        )  # fmt: skip
    with grid.cell():
        false_alarm = _percent(
            "Known images that may be flagged", _DEFAULT.false_alarm_limit, "watch-false",
            "An alarm says when more are. It holds no threshold back: misses count more.",
        )  # fmt: skip
    with grid.cell():
        strategy = st.selectbox(
            "Who chooses the threshold", _STRATEGIES, format_func=STRATEGY_NAME.__getitem__,
            key="watch-strategy",
        )  # fmt: skip
    st.caption(STRATEGY_MEANING[strategy])
    with st.expander("Details", icon=":material/tune:"):
        error, target, (floor, ceiling), budget = _choose_details(miss, recorded=recorded)
    try:
        return Settings(
            strategy=strategy, miss_limit=miss, miss_target=target, false_alarm_limit=false_alarm,
            error=error, audit_floor=floor / 100, audit_ceiling=ceiling / 100, budget=budget,
        )  # fmt: skip
    except ValueError as error:
        st.error(str(error), icon=":material/error:")
        return None


def _choose_details(
    miss_limit: float, *, recorded: bool
) -> tuple[float, float, tuple[int, int], int]:
    """Error, target, audit rates in percent, and questions in 1,000 images."""
    grid = st.grid("auto", min_column_width=250, gap="medium")
    with grid.cell():
        error = _percent(
            "Chance that a promise is wrong", _DEFAULT.error, "watch-error",
            "Of each kind: of ever giving a false certificate, and of ever raising a false alarm "
            "about misses, one about known images that are flagged, and one about a drift. "
            "That any of the four is wrong has at most four times this chance.",
        )  # fmt: skip
    with grid.cell():
        target = _percent(
            "The market aims at", miss_limit * _AIM, f"watch-target-{miss_limit:g}",
            "Share of unknown images accepted. The further below the limit, the sooner a "
            "certificate, and the more known images are flagged.",
        )  # fmt: skip
    with grid.cell():
        audits = st.slider(
            "You are asked about accepted images, in %", 1, 100,
            (_in_percent(_FLOOR), _in_percent(_CEILING))
            if recorded
            else (_in_percent(_DEFAULT.audit_floor), _in_percent(_DEFAULT.audit_ceiling)),
            key=f"watch-audit-{recorded}",
            help="By chance: few when all is proven well, more when it looks bad. You are asked "
            "about every flagged image. More questions, earlier proofs.",
        )  # fmt: skip
    with grid.cell():
        budget = st.number_input(
            "Questions in 1,000 images, at most", 1, 1_000,
            _BUDGET if recorded else _DEFAULT.budget, key=f"watch-budget-{recorded}",
        )  # fmt: skip
    return error, target, audits, int(budget)


def _percent(label: str, default: float, key: str, words: str) -> float:
    return st.number_input(
        f"{label}, in %", 0.1, 99.0, 100 * default, 1.0, format="%.1f", key=key, help=words
    ) / 100  # fmt: skip


def _in_percent(share: float) -> int:
    return round(100 * share)


def _show_folder(workspace: Workspace) -> None:
    st.markdown(
        "A folder is watched by a command, which goes on when this page is closed. Its stream is "
        "then listed here: watch it, and answer its questions."
    )
    name = workspace.manifest.name
    own = name if workspace_path(name) == workspace.path else str(workspace.path)
    command = f"python -m app watch NAME --workspace {shlex.quote(own)} --folder FOLDER"
    st.code(command, language="sh", wrap_lines=True)
    st.caption(
        "NAME is that of the stream, FOLDER is where images arrive. Further options set the limits "
        "and send alarms on; *--help* lists them."
    )


def _start(workspace: Workspace, name: str, settings: Settings, recorded: bool) -> None:
    if not recorded and played_by(name) is not None:
        st.session_state[_FAILED] = (
            f"{name} is what the stream of a recorded scenario is called; give another name."
        )
        return
    try:
        own = settings if recorded else with_own_seed(settings)
        watch = Watch.create(open_store(), workspace, name, own)
    except (StoreError, ValueError) as error:
        st.session_state[_FAILED] = str(error)
        return
    st.session_state[CHOSEN] = watch.name
    st.session_state[PLAYING] = watch.name
