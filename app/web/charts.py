"""Plotly figures from plain arrays."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from app.map_sampling import stratified_sample
from ood.decision import Verdict

MAP_POINTS = 8_000
CLASS_COLOURS = (
    "#7aa0d8", "#86bfa0", "#d1ad6c", "#b592bd", "#79b8c7",
    "#d79b94", "#a9b86a", "#9b93cc", "#cb8fb3", "#93a0b4",
)  # fmt: skip
_INK, _GREY = "#1f2937", "#64748b"
MARK_COLOUR = {
    Verdict.KNOWN: "#15803d",
    Verdict.UNSURE: "#c2620a",
    Verdict.UNKNOWN: "#c81e3a",
    Verdict.UNDECIDED: _GREY,
}
MARK_SYMBOL = {
    Verdict.KNOWN: "circle",
    Verdict.UNSURE: "diamond",
    Verdict.UNKNOWN: "x",
    Verdict.UNDECIDED: "circle",
}
GROUP_SYMBOLS = ("circle", "square", "diamond", "hexagon", "triangle-up")


def score_histogram(
    calibration: np.ndarray, threshold: float, score: float, verdict: Verdict
) -> go.Figure:
    """Where one image's score falls among those of normal images.

    A score far beyond all of them is drawn at the edge, with an arrow.

    Args:
        calibration: (n,) scores of the calibration images, ascending.
        threshold: above it an image is flagged; may be infinite.
        score: of the image.
        verdict: of the image.
    """
    low, high = float(calibration[0]), float(np.quantile(calibration, 0.999))
    margin = 0.35 * (high - low) or 1.0
    right = high + margin
    beyond = score > right
    figure = go.Figure()
    counts, edges = np.histogram(np.clip(calibration, low, right), bins=60, range=(low, right))
    centres = (edges[:-1] + edges[1:]) / 2
    colours = np.where(centres > threshold, "#f0c9a4", "#cbd5e1")
    figure.add_bar(
        x=centres, y=counts, width=np.diff(edges), marker={"color": colours, "line": {"width": 0}},
        hovertemplate="%{y} normal images<extra></extra>",
    )  # fmt: skip
    if threshold < right:
        figure.add_vline(
            x=threshold, line={"color": "#c2620a", "width": 1.5, "dash": "dash"},
            annotation={"text": "flagged from here", "xshift": 4,
                        "font": {"color": "#c2620a", "size": 12}},
            annotation_position="top right",
        )  # fmt: skip
    place = right if beyond else max(score, low - margin / 4)
    figure.add_vline(x=place, line={"color": MARK_COLOUR[verdict], "width": 3})
    figure.add_annotation(
        x=place, y=0.62, yref="paper", showarrow=False, xanchor="right", xshift=-6,
        text="<b>this image, far beyond →</b>" if beyond else "<b>this image</b>",
        font={"color": MARK_COLOUR[verdict], "size": 13}, bgcolor="rgba(255,255,255,0.8)",
    )  # fmt: skip
    if place < low + (right - low) * 0.3:
        figure.layout.annotations[-1].update(xanchor="left", xshift=6)
    figure.update_layout(
        height=190, margin={"l": 8, "r": 12, "t": 26, "b": 36}, showlegend=False, bargap=0,
        xaxis={"title": "ordinary  →  odd", "showticklabels": False, "showgrid": False,
               "range": [low - margin / 3, right + margin / 8], "zeroline": False},
        yaxis={"visible": False}, dragmode=False,
    )  # fmt: skip
    return figure


def map_figure(
    coordinates: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    calibration_flagged: np.ndarray,
    places: np.ndarray,
    verdicts: Sequence[Verdict],
    names: Sequence[str],
    clusters: np.ndarray,
) -> go.Figure:
    """Training images by class, flagged normal images, and the inspected images on top.

    Every point carries [what, row] in its custom data: "train" and a row of the Bank, or
    "image" and a row of the batch.

    Args:
        coordinates: (N, 2) of the training images; at most 8,000 are drawn, stratified.
        labels: (N,) their classes.
        classes: names.
        calibration_flagged: (F, 2) places of calibration images that are flagged.
        places: (M, 2) of the inspected images; all are drawn.
        verdicts: M of them.
        names: M names for hovering, as they are.
        clusters: (M,) group of each image; -1 for none.
    """
    figure = go.Figure()
    shown = stratified_sample(labels, MAP_POINTS)
    size, opacity = (4, 0.5) if len(shown) > 2_000 else (7, 0.8)
    for label, name in enumerate(classes):
        rows = shown[labels[shown] == label]
        figure.add_scattergl(
            x=coordinates[rows, 0], y=coordinates[rows, 1], mode="markers",
            name=literal_hover(name),
            customdata=[["train", int(row)] for row in rows],
            marker={"size": size, "opacity": opacity,
                    "color": CLASS_COLOURS[label % len(CLASS_COLOURS)]},
            hovertemplate=f"{literal_hover(name)}<extra>learned from</extra>",
        )  # fmt: skip
    figure.add_scattergl(
        x=calibration_flagged[:, 0], y=calibration_flagged[:, 1], mode="markers",
        name="normal but flagged", hoverinfo="skip",
        marker={"size": 6, "symbol": "circle-open", "color": "#64748b", "opacity": 0.7},
    )  # fmt: skip
    for verdict in Verdict:
        chosen = [row for row, v in enumerate(verdicts) if v is verdict]
        if not chosen:
            continue
        figure.add_scattergl(
            x=places[chosen, 0], y=places[chosen, 1], mode="markers", name=f"yours: {verdict}",
            customdata=[["image", row] for row in chosen],
            text=[literal_hover(names[row]) for row in chosen],
            marker={"size": 13 if len(verdicts) == 1 else 10, "color": MARK_COLOUR[verdict],
                    "symbol": MARK_SYMBOL[verdict], "line": {"width": 1.5, "color": "white"}},
            hovertemplate="%{text}<extra>" + verdict + "</extra>",
        )  # fmt: skip
    for group in range(int(clusters.max(initial=-1)) + 1):
        members = places[clusters == group]
        figure.add_scattergl(
            x=members[:, 0], y=members[:, 1], mode="markers", name=f"Group {group + 1}",
            marker={"size": 19, "symbol": f"{GROUP_SYMBOLS[group % len(GROUP_SYMBOLS)]}-open",
                    "color": _INK, "line": {"width": 1.5}},
            hoverinfo="skip",
        )  # fmt: skip
    hidden = {"visible": False, "scaleanchor": "x"}
    figure.update_layout(
        height=520, margin={"l": 0, "r": 0, "t": 4, "b": 0}, dragmode="lasso",
        xaxis={"visible": False}, yaxis=hidden,
        legend={"itemsizing": "constant", "orientation": "h", "y": -0.02, "font": {"size": 13}},
    )  # fmt: skip
    return figure


def literal_hover(text: str) -> str:
    """Text that Plotly takes literally: no tags, no template fields."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%", "&#37;")
