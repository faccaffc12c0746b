"""Plotly figures of the Detectors page, from plain arrays."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

_KNOWN, _UNKNOWN, _INK = "#94a3b8", "#c2620a", "#1f2937"
_BINS = 60
# Blue, white, orange: told apart by the colour-blind too.
_DIVERGING = [[0, "#2563a8"], [0.5, "#ffffff"], [1, "#c2620a"]]


def two_histograms(known: np.ndarray, unknown: np.ndarray, threshold: float) -> go.Figure:
    """How the scores of known and unknown images lie, each kind making up 100%.

    Scores far beyond the known ones are counted in the last bar.

    Args:
        known: (n,) scores of calibration images.
        unknown: (m,) scores of the set.
        threshold: above it an image is flagged; may be infinite.
    """
    low, high = _window(known, unknown)
    figure = go.Figure()
    edges = np.linspace(low, high, _BINS + 1)
    for scores, name, colour in (
        (known, "known images, held out", _KNOWN),
        (unknown, "this set", _UNKNOWN),
    ):
        share = np.histogram(np.clip(scores, low, high), edges)[0] / len(scores)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2, y=share, width=np.diff(edges), name=name,
            marker={"color": colour, "opacity": 0.6, "line": {"width": 0}},
            hovertemplate="%{y:.1%} of " + name + "<extra></extra>",
        )  # fmt: skip
    if low <= threshold <= high:
        left = threshold > (low + high) / 2
        figure.add_vline(
            x=threshold, line={"color": _INK, "width": 1.5, "dash": "dash"},
            annotation={"text": "← known | flagged →", "yshift": 2,
                        "font": {"color": _INK, "size": 12}},
            annotation_position="top left" if left else "top right",
        )  # fmt: skip
    beyond = bool((unknown > high).any())
    figure.update_layout(
        height=290, margin={"l": 8, "r": 12, "t": 30, "b": 40}, barmode="overlay", bargap=0,
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "top",
                "bgcolor": "rgba(255,255,255,0.7)"},
        xaxis={"title": "ordinary  →  odd" + (" (last bar: and beyond)" if beyond else ""),
               "showticklabels": False, "showgrid": False, "zeroline": False},
        yaxis={"tickformat": ".0%", "gridcolor": "#eef1f5"}, dragmode=False,
    )  # fmt: skip
    return figure


def agreement_map(correlation: np.ndarray, titles: Sequence[str]) -> go.Figure:
    """Rank correlations of D detectors, (D, D), as a heat map."""
    places = list(range(len(titles)))  # two detectors may have one title
    figure = go.Figure(
        go.Heatmap(
            z=correlation, x=places, y=places, zmin=-1, zmax=1, colorscale=_DIVERGING,
            customdata=[[f"{row}<br>{column}" for column in titles] for row in titles],
            hovertemplate="%{customdata}<br>%{z:.2f}<extra></extra>", xgap=1, ygap=1,
            colorbar={"thickness": 12, "tickvals": [-1, 0, 1], "len": 0.5,
                      "ticktext": ["-1 opposite", "0 unrelated", "1 the same"]},
        )
    )  # fmt: skip
    axis = {"tickvals": places, "ticktext": list(titles), "showgrid": False, "zeroline": False}
    figure.update_layout(
        height=180 + 19 * len(titles), margin={"l": 8, "r": 8, "t": 8, "b": 8}, dragmode=False,
        xaxis={**axis, "tickangle": -60, "automargin": True},
        yaxis={**axis, "autorange": "reversed", "automargin": True}, font={"size": 12},
    )  # fmt: skip
    return figure


def _window(known: np.ndarray, unknown: np.ndarray) -> tuple[float, float]:
    """From the smallest to the largest scores, but not so far that the known ones shrink."""
    low = float(min(np.quantile(known, 0.001), np.quantile(unknown, 0.005)))
    start, end = np.quantile(known, [0.001, 0.999])
    reach = 3 * float(end - start) or 1.0
    high = float(min(max(np.quantile(unknown, 0.995), end), start + reach))
    low = max(low, float(end) - reach)
    return low, high if high > low else low + 1.0
