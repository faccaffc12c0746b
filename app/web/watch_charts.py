"""Charts of a watched stream; thresholds are drawn at their rank, labelled by what they flag."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from app.watch_comparison import Outcome
from app.watch_history import History
from app.watch_scale import Scale
from app.web.charts import MARK_COLOUR
from app.web.watch_wording import STRATEGY_NAME
from ood.decision import Verdict
from ood.monitoring.report import Report
from ood.monitoring.thresholds import State

_INK, _GREY, _BLUE = "#1f2937", "#64748b", "#3457b2"
_GREEN, _RED = MARK_COLOUR[Verdict.KNOWN], MARK_COLOUR[Verdict.UNKNOWN]
_MOST_COLUMNS = 160
_HEIGHT = 270
_AXIS = "normal images flagged"
_STRIP = ((0.0, "#f8fafc"), (0.3, "#c9d8f0"), (0.65, "#6e8fd0"), (1.0, "#1e3a8a"))
_LN10 = float(np.log(10))
_LEAST, _MOST = -3.0, 6.0
_GOAL_MOST = _MOST + 0.3


def chart_rows(history: History) -> np.ndarray:
    """The last row of each number of images, evenly thinned to what a chart can show."""
    last = np.append(history.items[1:] != history.items[:-1], True)
    rows = np.flatnonzero(last & (history.items > 0))
    if len(rows) <= _MOST_COLUMNS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, _MOST_COLUMNS).round().astype(int)]


def threshold_chart(history: History, scale: Scale) -> go.Figure:
    """The threshold in force, what was proposed, and up to where it is certified."""
    rows = chart_rows(history)
    figure = go.Figure()
    for name, values, line in (
        ("certified up to", history.certified, {"color": _GREEN, "dash": "dash", "width": 2}),
        ("proposed", history.proposed, {"color": _BLUE, "dash": "dot", "width": 2}),
        ("in force", history.deployed, {"color": _INK, "width": 3}),
    ):
        figure.add_scatter(
            x=history.items[rows], y=scale.ranks(values[rows]), name=name, mode="lines",
            line={**line, "shape": "hv"},
            hovertemplate=f"image %{{x:,}}<extra>{name}</extra>",
        )  # fmt: skip
    _ranked(figure.layout.yaxis, scale)
    return _over_time(figure)


def flagged_chart(history: History) -> go.Figure:
    """Share of the last 500 images that was flagged, and how many accepted ones are asked about."""
    rows = chart_rows(history)
    figure = go.Figure()
    for name, values, line in (
        ("flagged", history.flagged_share, {"color": _INK, "width": 3}),
        ("accepted ones asked about", history.audit_rate,
         {"color": _GREY, "width": 2, "dash": "dot"}),
    ):  # fmt: skip
        figure.add_scatter(
            x=history.items[rows], y=values[rows], name=name, mode="lines", line=line,
            hovertemplate=f"image %{{x:,}}: %{{y:.1%}}<extra>{name}</extra>",
        )  # fmt: skip
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", showgrid=True)
    return _over_time(figure)


def price_strip(history: History, scale: Scale) -> go.Figure:
    """Prices over thresholds, dark where high, and the threshold in force as a line."""
    rows = chart_rows(history)
    # Per threshold: the rows of the strip stand for one to a few of them each.
    places = [scale.place(threshold) for threshold in history.thresholds]
    held = np.diff(places, append=len(scale.thresholds))
    prices = (history.prices[rows] / held).T.astype(np.float32)
    figure = go.Figure()
    figure.add_heatmap(
        x=history.items[rows], y=scale.ranks(history.thresholds),
        z=np.sqrt(prices), customdata=prices, colorscale=_STRIP, showscale=False,
        # Equal prices, as before the first answer, are pale.
        zmin=0, zmax=max(float(np.sqrt(prices.max())), 2 / len(scale.thresholds) ** 0.5),
        hovertemplate="image %{x:,}: price %{customdata:.2%}<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=history.items[rows], y=scale.ranks(history.deployed[rows]), name="in force",
        mode="lines", line={"color": "white", "width": 5, "shape": "hv"}, hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=history.items[rows], y=scale.ranks(history.deployed[rows]), name="in force",
        mode="lines", line={"color": _INK, "width": 2, "shape": "hv"}, hoverinfo="skip",
    )  # fmt: skip
    _ranked(figure.layout.yaxis, scale)
    return _over_time(figure)


def wealth_chart(report: Report, scale: Scale) -> go.Figure:
    """What bets on a violation and on a certificate have won at each threshold, and the goal.

    Thresholds that are proven to be either are shaded.
    """
    ranks, risk = np.arange(len(scale.thresholds)), report.misses
    here, goals = scale.place(report.deployed), risk.needed / _LN10
    figure = go.Figure()
    _shade_proven(figure, risk.states)
    for name, wealth, goal, colour, dash in (
        ("that more slips through", risk.log_violation, goals[0], _RED, "solid"),
        ("that less does", risk.log_certificate, goals[1], _GREEN, "dash"),
    ):
        figure.add_scatter(
            x=ranks, y=np.clip(wealth / _LN10, _LEAST, _MOST), name=name, mode="lines",
            line={"color": colour, "width": 2.5, "dash": dash},
            customdata=np.exp(np.minimum(wealth, 600)),
            hovertemplate=f"wealth %{{customdata:,.3g}}<extra>{name}</extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=ranks, y=np.minimum(goal, _GOAL_MOST), mode="lines", hoverinfo="skip", name="needed",
            line={"color": colour, "width": 1, "dash": "dot"}, showlegend=False,
        )  # fmt: skip
    figure.add_vline(
        x=here, line={"color": _INK, "width": 2},
        annotation={"text": "in force", "font": {"color": _INK, "size": 12}},
        annotation_position=f"bottom {'right' if here < len(ranks) / 2 else 'left'}",
    )  # fmt: skip
    figure.add_annotation(
        x=0, xanchor="left", y=min(float(goals[0, 0]), _GOAL_MOST), yanchor="bottom",
        text="needed" if (goals <= _GOAL_MOST).all() else "needed (partly above the chart)",
        showarrow=False, font={"color": _GREY, "size": 12},
    )  # fmt: skip
    powers = np.arange(int(_LEAST), int(_MOST) + 1)
    labels = [_power(int(power)) for power in powers]
    labels[0], labels[-1] = f"below {labels[0]}", f"above {labels[-1]}"
    figure.update_yaxes(
        title="wealth, from 1", tickvals=powers, ticktext=labels,
        range=[_LEAST - 0.2, _MOST + 0.6], showgrid=True, zeroline=False,
    )  # fmt: skip
    _ranked(figure.layout.xaxis, scale)
    return _laid_out(figure)


def _shade_proven(figure: go.Figure, states: np.ndarray) -> None:
    """Behind the thresholds that are proven; hatched, so that no colour is needed to tell them."""
    low, high = _LEAST - 0.2, _MOST + 0.6
    for state, name, colour, shape in (
        (State.VIOLATED, "proven: more", _RED, "/"),
        (State.CERTIFIED, "proven: less", _GREEN, "\\"),
    ):
        of_state = np.flatnonzero(states == state)
        if not len(of_state):
            continue
        first, last = of_state[0] - 0.5, of_state[-1] + 0.5  # there are none of others between
        figure.add_scatter(
            x=[first, first, last, last], y=[low, high, high, low], name=name, mode="none",
            fill="toself", hoverinfo="skip",
            fillpattern={"shape": shape, "fgcolor": colour, "fgopacity": 0.35, "size": 9,
                         "bgcolor": "rgba(0,0,0,0)", "solidity": 0.12},
        )  # fmt: skip


def compared_thresholds(outcomes: Sequence[Outcome], scale: Scale) -> go.Figure:
    """The threshold of each strategy over time."""
    figure = go.Figure()
    for outcome, line in zip(outcomes, _two_lines(), strict=False):
        rows = _thinned(len(outcome.thresholds))
        figure.add_scatter(
            x=rows + 1, y=scale.ranks(outcome.thresholds[rows]), mode="lines", line=line,
            name=STRATEGY_NAME[outcome.settings.strategy],
            hovertemplate="image %{x:,}<extra></extra>",
        )  # fmt: skip
    _ranked(figure.layout.yaxis, scale)
    return _over_time(figure)


def compared_misses(outcomes: Sequence[Outcome]) -> go.Figure:
    """What share of unknown images each let through, in truth, and the limit."""
    figure = go.Figure()
    for outcome, line in zip(outcomes, _two_lines(), strict=False):
        rows = _thinned(len(outcome.missed))
        figure.add_scatter(
            x=rows + 1, y=outcome.missed[rows], mode="lines", line=line,
            name=STRATEGY_NAME[outcome.settings.strategy],
            hovertemplate="image %{x:,}: %{y:.1%}<extra></extra>",
        )  # fmt: skip
    figure.add_hline(
        y=outcomes[0].settings.miss_limit, line={"color": _RED, "width": 1.5, "dash": "dash"},
        annotation={"text": "limit", "font": {"color": _RED, "size": 12}},
    )  # fmt: skip
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", showgrid=True)
    return _over_time(figure)


def _two_lines() -> Sequence[dict[str, object]]:
    return (
        {"color": _BLUE, "width": 3},
        {"color": MARK_COLOUR[Verdict.UNSURE], "width": 2.5, "dash": "dash"},
    )


def _thinned(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, 600).round().astype(int))


def _power(exponent: int) -> str:
    if exponent < 0:
        return f"1/{10**-exponent:,}"
    return f"{10**exponent:,}"


def _ranked(axis: go.layout.XAxis | go.layout.YAxis, scale: Scale) -> None:
    places, labels = scale.ticks()
    axis.update(
        title=_AXIS, tickvals=places, ticktext=labels, range=[-2, len(scale.thresholds) + 1],
        showgrid=True, zeroline=False,
    )  # fmt: skip


def _over_time(figure: go.Figure) -> go.Figure:
    figure.update_xaxes(title="image", showgrid=False, tickformat=",", rangemode="tozero")
    return _laid_out(figure)


def _laid_out(figure: go.Figure) -> go.Figure:
    return figure.update_layout(
        height=_HEIGHT, margin={"l": 8, "r": 12, "t": 34, "b": 36}, dragmode=False,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "font": {"size": 13}},
    )  # fmt: skip
