"""Pictures for the screen, and rows of them."""

import base64
import io
from collections.abc import Iterable, Sequence

import numpy as np
import streamlit as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from app.workspace import Workspace

_WARM, _COLD = (234, 88, 12), (37, 99, 235)


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


def gallery(
    workspace: Workspace, rows: Iterable[int], captions: Sequence[str], side: int = 96
) -> None:
    """Training images side by side, each with its caption (Markdown) below."""
    grid = st.grid("auto", min_column_width=side, gap=("small", "xsmall"))
    for row, caption in zip(rows, captions, strict=True):
        label = workspace.classes[workspace.bank.images.labels[row]]
        with grid.cell():
            picture = enlarged(workspace.bank.images.thumbnails[row], side)
            st.image(picture, width=side, alt=f"training image labelled {label}")
            st.caption(caption)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
