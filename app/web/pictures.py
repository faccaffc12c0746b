"""Pictures for the screen, and rows of them."""

import base64
import io
from collections.abc import Iterable, Sequence

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from app.workspace import Workspace
from models.observed import ObservedSet

_WARM, _COLD = (234, 88, 12), (37, 99, 235)
_PATCH_VIEW = 0.36  # of the image's side: a cell alone is too small to be recognised

Cell = tuple[int, int]


def enlarged(picture: bytes, side: int) -> bytes:
    """A small picture with its pixels kept square, at about `side` pixels; large ones as is."""
    with Image.open(io.BytesIO(picture)) as image:
        factor = side // max(image.size)
        if factor <= 1:
            return picture
        return _png(image.resize([n * factor for n in image.size], Image.Resampling.NEAREST))


def data_url(picture: bytes) -> str:
    """A WebP picture for a table cell."""
    return "data:image/webp;base64," + base64.b64encode(picture).decode()


def attribution_overlay(pixels: np.ndarray, attribution: np.ndarray, side: int) -> bytes:
    """The network's input in gray, warm where it spoke for the class, cold where against it.

    Args:
        pixels: (channels, S, S) uint8.
        attribution: (S, S), any scale.
        side: of the picture, in pixels.
    """
    size = pixels.shape[-1]
    smooth = gaussian_filter(attribution.astype(np.float64), sigma=size / 28)
    strength = np.abs(smooth) / max(float(np.quantile(np.abs(smooth), 0.995)), 1e-12)
    alpha = np.clip(strength, 0, 1)[..., None] ** 0.7 * 0.85
    gray = np.repeat(pixels.mean(axis=0)[..., None], 3, axis=2) * 0.75 + 40
    colour = np.where(smooth[..., None] > 0, _WARM, _COLD)
    blended = np.clip(gray * (1 - alpha) + colour * alpha, 0, 255).astype(np.uint8)
    resampling = Image.Resampling.NEAREST if size <= 64 else Image.Resampling.BILINEAR
    return _png(Image.fromarray(blended).resize((side, side), resampling))


def patch_overlay(pixels: np.ndarray, p_values: np.ndarray, cell: Cell, side: int) -> bytes:
    """The network's input in gray, warm where it is unlike any training patch, one cell boxed.

    Args:
        pixels: (channels, S, S) uint8.
        p_values: (h, w) of the cells; from 0.05 down they show, fully so at 0.001.
        cell: row and column to draw a box around.
        side: of the picture, in pixels.
    """
    strength = np.clip(np.log(np.maximum(p_values, 1e-30) / 0.05) / np.log(0.001 / 0.05), 0, 1)
    smooth = Image.fromarray(strength.astype(np.float32)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    alpha = np.clip(np.asarray(smooth), 0, 1)[..., None] * 0.75
    gray = np.asarray(_square(pixels, side).convert("L"), np.float64)[..., None] * 0.75 + 40
    blended = Image.fromarray((gray * (1 - alpha) + np.array(_WARM) * alpha).astype(np.uint8))
    return _png(_boxed(blended, _cell_box(cell, p_values.shape)))


def patch_view(pixels: np.ndarray, cell: Cell, grid: tuple[int, ...], side: int) -> bytes:
    """One cell enlarged, with about a third of the image's side around it and a box on the cell.

    Args:
        pixels: (channels, S, S) uint8.
        cell: row and column.
        grid: rows and columns of cells.
        side: of the picture, in pixels.
    """
    box = _cell_box(cell, grid)
    share = min(1.0, max(_PATCH_VIEW, 3 / min(grid)))
    left, top = (
        min(max((low + high - share) / 2, 0), 1 - share)
        for low, high in ((box[0], box[2]), (box[1], box[3]))
    )
    whole = _square(pixels, round(side / share))
    at = [round(n * whole.width) for n in (left, top)]
    view = whole.crop((at[0], at[1], at[0] + side, at[1] + side))
    inner = [(n - start) / share for n, start in zip(box, (left, top, left, top), strict=True)]
    return _png(_boxed(view.convert("RGB"), inner))


def boxed(pixels: np.ndarray, cell: Cell, grid: tuple[int, ...], side: int) -> bytes:
    """The network's input as it is, with a box on one cell; arguments as for `patch_view`."""
    return _png(_boxed(_square(pixels, side).convert("RGB"), _cell_box(cell, grid)))


def gallery(
    workspace: Workspace, rows: Iterable[int], captions: Sequence[str], side: int = 96,
    images: ObservedSet | None = None,
) -> None:  # fmt: skip
    """Images side by side, each with its caption (Markdown) below; training images by default."""
    kind = "training" if images is None else "calibration"
    images = images or workspace.bank.images
    grid = st.grid("auto", min_column_width=side, gap=("small", "xsmall"))
    for row, caption in zip(rows, captions, strict=True):
        label = workspace.classes[images.labels[row]]
        with grid.cell():
            picture = enlarged(images.thumbnails[row], side)
            st.image(picture, width=side, alt=f"{kind} image labelled {label}")
            st.caption(caption)


def _square(pixels: np.ndarray, side: int) -> Image.Image:
    """(channels, S, S) as a picture; small ones keep their pixels square."""
    array = pixels.transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(array[..., 0] if len(pixels) == 1 else array))
    small = pixels.shape[-1] <= 64
    resampling = Image.Resampling.NEAREST if small else Image.Resampling.BILINEAR
    return picture.resize((side, side), resampling)


def _cell_box(cell: Cell, grid: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom, in shares of the side."""
    (row, column), (rows, columns) = cell, grid
    return column / columns, row / rows, (column + 1) / columns, (row + 1) / rows


def _boxed(picture: Image.Image, box: Sequence[float]) -> Image.Image:
    """The picture with a box drawn around a part of it, light on dark."""
    left, top, right, bottom = (n * picture.width for n in box)
    draw = ImageDraw.Draw(picture)
    for margin, colour in ((3, "black"), (2, "white"), (1, "white"), (0, "black")):
        draw.rectangle(
            (left - margin, top - margin, right + margin, bottom + margin), outline=colour
        )
    return picture


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
