"""The map of all layers as a Plotly figure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from app.map_layers import VERDICTS, Colour, Colouring, Dots, Layer
from app.web.charts import CLASS_COLOURS, MARK_COLOUR, literal_hover
from app.web.pictures import data_url

NO_COLOUR = "#c8cdd5"
# From the oddest to the most ordinary; told apart in grey too.
_ODD_TO_USUAL = ("#7f0f2d", "#cf4a2f", "#eda94b", "#4f86bd")
_INK = "#1f2937"
_MOST_LEGEND = 30
_ROOM = 26  # pictures side by side, about


@dataclass(frozen=True)
class Kind:
    """How images of one kind are drawn.

    Attributes:
        name: for the legend.
        symbol: Plotly's; colour alone tells nothing.
        size: in pixels.
        opacity: from 0 to 1.
        outlined: whether a white line sets it off from what lies below.
    """

    name: str
    symbol: str
    size: float
    opacity: float
    outlined: bool = False


_KINDS: tuple[tuple[Layer, bool | None, Kind], ...] = (
    (Layer.TRAINING, None, Kind("training image", "circle", 4, 0.55)),
    (Layer.NORMAL, None, Kind("normal but flagged", "circle-open", 7, 0.9)),
    (Layer.INBOX, None, Kind("in the inbox", "square", 8, 0.9, outlined=True)),
    (Layer.UPLOADS, False, Kind("yours", "diamond", 11, 1, outlined=True)),
    (Layer.UPLOADS, True, Kind("yours, flagged", "x", 11, 1, outlined=True)),
)


def layered_figure(
    dots: Dots, rows: np.ndarray, colours: Colouring, palette: Sequence[str], *, rings: bool
) -> go.Figure:
    """Each kind of image with its own symbol, each category with its own colour.

    What a dot is, is not in the figure: what is drawn around is found by its place, so that the
    figure stays small and a selection need not name its dots.

    Args:
        dots: M images.
        rows: (n,) those to be drawn.
        colours: categories of the M images.
        palette: a colour for each category; used again where they are too few.
        rings: whether to ring the images that are in a group.
    """
    figure = go.Figure()
    if rings:
        ringed = rows[dots.groups[rows] >= 0]
        figure.add_scattergl(
            x=dots.places[ringed, 0], y=dots.places[ringed, 1], mode="markers", hoverinfo="skip",
            name="in a group", showlegend=bool(len(ringed)),
            marker={"size": 15, "symbol": "hexagon-open", "color": _INK, "line": {"width": 1}},
        )  # fmt: skip
    flagged = dots.flagged
    for layer, asked, kind in _KINDS:
        these = rows[dots.of_layer(layer)[rows]]
        if asked is not None:
            these = these[flagged[these] == asked]
        if len(these):
            _add_kind(figure, dots, these, colours, palette, kind)
    _add_colour_legend(figure, np.unique(colours.of[rows]), colours, palette)
    figure.update_layout(
        height=640, margin={"l": 0, "r": 0, "t": 4, "b": 0}, dragmode="lasso", hovermode="closest",
        xaxis={"visible": False}, yaxis={"visible": False, "scaleanchor": "x"},
        # Layers are switched above the map, where the lasso knows of it.
        legend={"itemsizing": "constant", "orientation": "h", "y": -0.02, "font": {"size": 13},
                "itemclick": False, "itemdoubleclick": False},
    )  # fmt: skip
    return figure


def add_pictures(
    figure: go.Figure, places: np.ndarray, pictures: Sequence[bytes], side: float
) -> None:
    """WebP pictures on the map, each at its (2,) place and as large as `side`."""
    figure.update_layout(
        images=[
            {"source": data_url(picture), "xref": "x", "yref": "y", "x": float(x), "y": float(y),
             "sizex": side, "sizey": side, "xanchor": "center", "yanchor": "middle",
             "layer": "above"}
            for (x, y), picture in zip(places, pictures, strict=True)
        ]
    )  # fmt: skip


def picture_side(places: np.ndarray) -> float:
    """Side of a square on the map that a picture gets, by the map's extent."""
    return float(np.ptp(places, axis=0).max(initial=0)) / _ROOM if len(places) else 0.0


def palette_of(colour: Colour) -> Sequence[str]:
    """A colour for each category."""
    if colour is Colour.VERDICT:
        return [MARK_COLOUR[verdict] for verdict in VERDICTS]
    if colour is Colour.P_VALUE:
        return _ODD_TO_USUAL
    return _ODD_TO_USUAL[::-1] if colour is Colour.LOSS else CLASS_COLOURS


def _add_kind(
    figure: go.Figure, dots: Dots, rows: np.ndarray, colours: Colouring, palette: Sequence[str],
    kind: Kind,
) -> None:  # fmt: skip
    """A trace for each category, and a grey sign for the legend."""
    for category in np.unique(colours.of[rows]).tolist():
        these = rows[colours.of[rows] == category]
        name = literal_hover(_name(colours, category))
        marker = {"size": kind.size, "symbol": kind.symbol, "opacity": kind.opacity,
                  "color": _colour(palette, category)}  # fmt: skip
        if kind.outlined:
            marker["line"] = {"width": 1.2, "color": "white"}
        figure.add_scattergl(
            x=dots.places[these, 0], y=dots.places[these, 1], mode="markers", marker=marker,
            showlegend=False, hovertemplate=f"{name}<extra>{kind.name}</extra>",
        )  # fmt: skip
    figure.add_scatter(
        x=[None], y=[None], mode="markers", name=kind.name,
        marker={"symbol": kind.symbol, "size": 10, "color": _INK},
    )  # fmt: skip


def _add_colour_legend(
    figure: go.Figure, used: np.ndarray, colours: Colouring, palette: Sequence[str]
) -> None:
    """A filled square for each colour on the map; none where they would fill the screen."""
    if len(used) > _MOST_LEGEND:
        return
    for category in [*used[used >= 0].tolist(), *used[used < 0].tolist()]:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=literal_hover(_name(colours, category)),
            marker={"symbol": "square", "size": 14, "color": _colour(palette, category)},
        )  # fmt: skip


def _name(colours: Colouring, category: int) -> str:
    return colours.names[category] if category >= 0 else colours.none


def _colour(palette: Sequence[str], category: int) -> str:
    return palette[category % len(palette)] if category >= 0 else NO_COLOUR
