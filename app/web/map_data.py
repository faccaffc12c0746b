"""What the Map page draws, cached by what it is made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from app.discovery import Grouping, in_force
from app.inbox import identity
from app.inbox_contents import Stream
from app.inbox_tables import InboxError
from app.map_layers import (
    LAYERS,
    Colour,
    Dots,
    Layer,
    calibration_dots,
    colouring,
    inbox_dots,
    training_dots,
    upload_dots,
)
from app.map_sampling import apart, drawn
from app.map_selection import Origins
from app.web.inbox_pages import open_inbox
from app.web.job import Batch
from app.web.map_figure import add_pictures, layered_figure, palette_of, picture_side
from app.web.novelty_groups import candidates, version, waiting_rows
from app.workspace import Workspace
from explain.map import place
from explain.map_quality import NEIGHBOURS, MapQuality, map_quality
from models.activations import Activations

MOST_PICTURES = 150
_PLACED_AT_ONCE = 4_096


@dataclass(frozen=True)
class Waiting:
    """The part of the inbox that waits for a person.

    Attributes:
        stream: everything in the inbox.
        rows: (n,) of the stream, neither named nor dismissed.
        version: what caches know it by: its images and what was decided.
    """

    stream: Stream
    rows: np.ndarray
    version: str

    @classmethod
    def read(cls, workspace: Workspace) -> "Waiting":
        """What is in the inbox now.

        Raises:
            InboxError: when it cannot be read.
        """
        inbox, known_as = open_inbox(), identity(workspace)
        stream, named = inbox.stream(known_as), in_force(inbox.classes(known_as))
        rows = waiting_rows(stream, {digest for one in named for digest in one.sha256})
        return cls(stream, rows, version(stream, rows))


@st.cache_resource(max_entries=8, show_spinner=False)
def all_dots(
    version: str, _workspace: Workspace, _batch: Batch | None, _waiting: Waiting | None,
    _groups: np.ndarray,
) -> Dots:  # fmt: skip
    """The images of all layers.

    Args:
        version: what caches know all of the following by.
        _workspace: of training and calibration images.
        _batch: the uploads; None without any.
        _waiting: the inbox; None where it cannot be read.
        _groups: (N,) of the stream's images, -1 for none; empty where they are not asked for.
    """
    parts = [_prepared_dots(_workspace.key, _workspace)]
    own = [image.sha256 for image in _batch.images] if _batch is not None else []
    group_of: dict[str, int] = {}
    if _waiting is not None and len(_waiting.rows):
        rows, stream = _waiting.rows, _waiting.stream
        found = _groups if len(_groups) else np.full(len(stream), -1)
        places, digests = _places(_workspace, stream)[rows], stream.sha256[rows]
        twins = np.isin(digests, own)
        parts.append(inbox_dots(_workspace, stream, rows, places, found[rows], twins))
        group_of = dict(zip(digests[twins].tolist(), found[rows][twins].tolist(), strict=True))
    if _batch is not None and _batch.inspection is not None:
        shared = np.array([group_of.get(digest, -1) for digest in own], np.int64)
        parts.append(upload_dots(_workspace, _batch.inspection, shared))
    return Dots.join(parts)


@st.cache_resource(max_entries=4, show_spinner="Drawing the map ...")
def _prepared_dots(key: str, _workspace: Workspace) -> Dots:
    return Dots.join([training_dots(_workspace), calibration_dots(_workspace)])


def group_numbers(workspace: Workspace, waiting: Waiting) -> np.ndarray:
    """(N,) group of each image of the stream, as the Novelty page numbers them; -1 for none."""
    groups = np.full(len(waiting.stream), -1)
    found = candidates(workspace, waiting.stream, waiting.rows, Grouping.ALL)
    for number, candidate in enumerate(found):
        groups[candidate.rows] = number
    return groups


def _places(workspace: Workspace, stream: Stream) -> np.ndarray:
    """(N, 2) of the stream. In parts, so that what is added does not move what is there."""
    parts = [np.empty((0, 2), np.float32)]
    for start in range(0, len(stream), _PLACED_AT_ONCE):
        part = slice(start, start + _PLACED_AT_ONCE)
        digest = sha256(stream.sha256[part].tobytes()).hexdigest()
        parts.append(_place(workspace.key, digest, workspace, stream.vectors.features[part]))
    return np.concatenate(parts)


@st.cache_data(max_entries=256, show_spinner="Placing the inbox on the map ...")
def _place(key: str, digest: str, _workspace: Workspace, _features: np.ndarray) -> np.ndarray:
    # The search asks for features only.
    seen = Activations(logits=np.empty((len(_features), 0), np.float32), features=_features)
    neighbours = _workspace.bank.locate(seen).neighbours
    assert neighbours is not None  # locate has just set them
    return place(neighbours, _workspace.coordinates)


@dataclass(frozen=True)
class Drawing:
    """A figure, and what it was drawn from.

    Attributes:
        figure: the very same object for the same key.
        visible: rows of the images in the layers that are switched on.
        count: how many of them are drawn.
        flagged_left_out: flagged ones that are not drawn, where there are too many.
        key: of the figure.
    """

    figure: go.Figure
    visible: np.ndarray
    count: int
    flagged_left_out: int
    key: str


def drawing(
    origins: Origins, dots: Dots, layers: Sequence[Layer], colour: Colour, *, pictures: bool,
    version: str,
) -> Drawing:  # fmt: skip
    """The map with these layers, coloured by this.

    Args:
        origins: where the images come from.
        dots: M images.
        layers: to be shown.
        colour: what it is to say.
        pictures: whether to put some pictures on the map.
        version: what caches know the images by.
    """
    key = sha256(f"{version} {list(layers)} {colour} {pictures}".encode()).hexdigest()[:16]
    return _drawing(key, origins, dots, layers, colour, pictures)


# The very same object on every rerun, or the selection is lost; see app.web.map_view.
@st.cache_resource(max_entries=32, show_spinner=False)
def _drawing(
    key: str, _origins: Origins, _dots: Dots, _layers: Sequence[Layer], _colour: Colour,
    _pictures: bool,
) -> Drawing:  # fmt: skip
    visible = _dots.visible(_layers)
    rows = drawn(_dots, visible)
    colours = colouring(_dots, _colour, _origins.workspace.classes)
    figure = layered_figure(
        _dots, rows, colours, palette_of(_colour), rings=Layer.GROUPS in _layers
    )
    if _pictures:
        _spread_pictures(figure, _origins, _dots, rows)
    left_out = int(_dots.flagged[visible].sum() - _dots.flagged[rows].sum())
    return Drawing(figure, visible, len(rows), left_out, key)


def _spread_pictures(figure: go.Figure, origins: Origins, dots: Dots, rows: np.ndarray) -> None:
    """Pictures where there is room, those of uploads and of the inbox first."""
    order = np.random.default_rng(0).permutation(rows)
    prepared = dots.layers[order] < LAYERS.index(Layer.UPLOADS)
    order = order[np.argsort(prepared, kind="stable")]
    side = picture_side(dots.places[order])
    chosen = order[apart(dots.places[order], side, MOST_PICTURES)]
    found = thumbnails(origins, dots, chosen)
    shown = list(found)
    add_pictures(figure, dots.places[shown], [found[row] for row in shown], 0.94 * side)


def thumbnails(origins: Origins, dots: Dots, rows: Iterable[int]) -> dict[int, bytes]:
    """WebP pictures by row; images deleted from the inbox by now are not among them."""
    found, items = {}, {}
    for row in map(int, rows):
        own = int(dots.rows[row])
        match LAYERS[dots.layers[row]]:
            case Layer.TRAINING:
                found[row] = origins.workspace.bank.images.thumbnails[own]
            case Layer.NORMAL:
                found[row] = origins.workspace.calibration.images.thumbnails[own]
            case Layer.UPLOADS:
                found[row] = origins.uploads[own].thumbnail
            case Layer.INBOX:
                assert origins.stream is not None  # its images are among the dots
                items[row] = int(origins.stream.ids[own])
    try:
        pictures = open_inbox().pictures(list(items.values())) if items else {}
    except InboxError:
        pictures = {}  # the page says why
    return found | {row: pictures[item] for row, item in items.items() if item in pictures}


@st.cache_data(max_entries=8, show_spinner="Checking how well the map keeps neighbours ...")
def quality(key: str, _workspace: Workspace) -> MapQuality | None:
    """Of the workspace's map; None for too few images."""
    images = _workspace.bank.images
    neighbours = min(NEIGHBOURS, (len(images) - 1) // 2)
    if neighbours < 1:
        return None
    return map_quality(images.activations.features, _workspace.coordinates, neighbours)
