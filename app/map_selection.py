"""Which of all points lie in what was drawn on a map, drawn themselves or not, and what of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.inbox_contents import Stream
from app.inspection import Inspection
from app.map_layers import LAYERS, VERDICTS, Dots, Layer
from app.records import Record
from app.uploads import UploadedImage
from app.workspace import Workspace


def inside(selection: Mapping[str, Any], coordinates: np.ndarray) -> np.ndarray:
    """Rows in any lasso or box of a chart's selection.

    A map shows a sample of its points; what a person draws around means all of them.

    Args:
        selection: of a Plotly chart in Streamlit: `lasso` and `box`, each a list of `x` and `y`.
        coordinates: (N, 2).

    Returns:
        (n,) rows, ascending.
    """
    found = np.zeros(len(coordinates), bool)
    for drawn in selection.get("lasso", []):
        found |= in_polygon(drawn["x"], drawn["y"], coordinates)
    for drawn in selection.get("box", []):
        low, high = (np.array([bound(drawn["x"]), bound(drawn["y"])]) for bound in (min, max))
        found |= ((coordinates >= low) & (coordinates <= high)).all(axis=1)
    return np.flatnonzero(found)


def in_polygon(xs: Sequence[float], ys: Sequence[float], coordinates: np.ndarray) -> np.ndarray:
    """(N,) bool by the even-odd rule: a ray to the right crosses an odd number of edges.

    Args:
        xs: (K,) of the corners, in order.
        ys: (K,).
        coordinates: (N, 2).
    """
    x, y = np.asarray(coordinates, np.float64).T
    found = np.zeros(len(coordinates), bool)
    for x0, y0, x1, y1 in zip(xs, ys, np.roll(xs, -1), np.roll(ys, -1), strict=True):
        crossing = (y0 > y) != (y1 > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            found ^= crossing & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return found


@dataclass(frozen=True)
class Summary:
    """What was selected.

    Attributes:
        images: how many.
        flagged: how many of them are flagged.
        classes: how many classes they are of, by label or by what the model says.
        layers: name of a layer to how many are of it; layers without any are left out.
    """

    images: int
    flagged: int
    classes: int
    layers: dict[Layer, int]


def summarise(dots: Dots, rows: np.ndarray) -> Summary:
    """Counts of (n,) selected rows."""
    counts = np.bincount(dots.layers[rows], minlength=len(LAYERS))
    return Summary(
        images=len(rows),
        flagged=int(dots.flagged[rows].sum()),
        classes=len(np.unique(dots.classes[rows])),
        layers={layer: int(n) for layer, n in zip(LAYERS, counts, strict=True) if n},
    )


def tellest_first(dots: Dots, rows: np.ndarray) -> np.ndarray:
    """Selected rows: by p-value, the smallest first; then, without one, by loss, the largest."""
    p_values, losses = dots.p_values[rows], dots.losses[rows]
    return rows[np.lexsort((-losses, p_values))]  # NaN is last in both


@dataclass(frozen=True)
class Origins:
    """Where the images of the dots come from.

    Attributes:
        workspace: of training and calibration images.
        uploads: of the batch; none without one.
        inspection: theirs; None where there are none.
        stream: the inbox; None where none can be had.
    """

    workspace: Workspace
    uploads: Sequence[UploadedImage]
    inspection: Inspection | None
    stream: Stream | None

    def known_by(self, dots: Dots, row: int) -> str:
        """The sha256 of its pixels; later copies among the training images get -2 and on."""
        own = int(dots.rows[row])
        match LAYERS[dots.layers[row]]:
            case Layer.TRAINING:
                return self.workspace.training_ids[own]
            case Layer.NORMAL:
                return self.workspace.calibration.images.sha256(own)
            case Layer.UPLOADS:
                return self.uploads[own].sha256
        assert self.stream is not None  # no other layer has images
        return str(self.stream.sha256[own])

    def file(self, dots: Dots, row: int) -> str:
        """Its file's name."""
        own = int(dots.rows[row])
        match LAYERS[dots.layers[row]]:
            case Layer.TRAINING:
                return self.workspace.bank.images.name(own)
            case Layer.NORMAL:
                return self.workspace.calibration.images.name(own)
            case Layer.UPLOADS:
                return self.uploads[own].name
        assert self.stream is not None  # no other layer has images
        return self.stream.names[own]


def selection_records(
    origins: Origins, dots: Dots, rows: np.ndarray, tags: Mapping[str, str]
) -> list[Record]:
    """One record for each selected image.

    Args:
        origins: where they come from.
        dots: M images.
        rows: (n,) selected ones.
        tags: of images, by what they are known by.
    """
    classes, records = origins.workspace.classes, []
    for row in rows.tolist():
        known_by, verdict = origins.known_by(dots, row), int(dots.verdicts[row])
        records.append(
            {
                "id": known_by,
                "layer": LAYERS[dots.layers[row]].value,
                "class": classes[dots.classes[row]],
                "verdict": VERDICTS[verdict].value if verdict >= 0 else None,
                "p_value": _number(dots.p_values[row]),
                "group": int(dots.groups[row]) + 1 if dots.groups[row] >= 0 else None,
                "loss": _number(dots.losses[row]),
                "tag": tags.get(known_by),
                "file": origins.file(dots, row),
            }
        )
    return records


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
