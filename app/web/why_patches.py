"""Where an image is unlike anything learned."""

import io

import numpy as np
import streamlit as st
from PIL import Image

from app.uploads import UploadedImage
from app.web.pictures import boxed, patch_overlay, patch_view
from app.web.wording import out_of, plain
from app.workspace import Workspace
from ood.patches import PatchMap
from ood.quantiles import BEYOND

SIDE = 280
ODD = 0.05
WIDESPREAD = 4 * ODD


def show_patches(workspace: Workspace, image: UploadedImage, *, numbers: bool) -> None:
    """The patch map, its oddest cell enlarged, and the nearest training patch beside it."""
    patches = workspace.patches
    found = _patch_map(workspace.key, image.sha256, workspace, image.pixels)
    if patches is None or found is None:
        return
    cell, grid = found.oddest, found.p_values.shape
    nearest = int(found.nearest[cell])
    row, place = int(patches.images[nearest]), divmod(int(patches.cells[nearest]), grid[1])
    learned = _network_input(workspace, row)
    label = workspace.classes[workspace.bank.images.labels[row]]
    st.markdown(f"##### Where\n{place_sentence(found, patches.size)}")
    st.caption(
        f"Orange: the more, the less a place looks like any of {len(patches.images):,} places "
        f"remembered from {patches.training_images:,} training images. The box marks the oddest "
        "one."
    )
    overlay, own, other, whole = (
        patch_overlay(image.pixels, found.p_values, cell, SIDE),
        patch_view(image.pixels, cell, grid, SIDE),
        patch_view(learned, place, grid, SIDE),
        boxed(learned, place, grid, SIDE),
    )
    captions = (
        (overlay, "**This image**"),
        (own, "**The boxed place**, enlarged"),
        (other, f"**The most similar** of {len(patches.images):,} remembered places"),
        (whole, f"**Where that is:** a training image labelled {plain(label)}"),
    )
    pictures = st.grid("auto", min_column_width=150, gap=("medium", "small"))
    for picture, caption in captions:
        with pictures.cell():
            st.image(picture, width=SIDE, alt=caption.replace("*", ""))
            st.caption(caption)
    if numbers:
        st.caption(
            f"p-value of the boxed place: {found.p_values[cell]:.2g}, among {patches.size:,} "
            f"places of normal images. Places with p at most {ODD}: "
            f"{(found.p_values <= ODD).sum()} of {found.p_values.size}. It stands out when p times "
            "the number of places is at most 0.05."
        )


def stands_out(found: PatchMap) -> bool:
    """Whether the oddest cell is odd even for the oddest of so many (Bonferroni)."""
    return bool(found.p_values.min() * found.p_values.size <= ODD)


def place_sentence(found: PatchMap, size: int) -> str:
    """What the map says in plain words; `size` is how many normal cells it compares with."""
    odd = float((found.p_values <= ODD).mean())
    if not stands_out(found):
        if odd <= WIDESPREAD:
            return "No single place stands out: it is the whole that is unusual."
        return (
            f"No single place stands out, but {odd:.0%} of the places are odd. In normal images "
            f"{ODD:.0%} are."
        )
    p_value = float(found.p_values.min())
    if p_value * (size + 1) < BEYOND:
        rarity = f"not one of {size:,} places in normal images"
    else:
        rarity = f"only {out_of(p_value)} places in normal images"
    others = f" {odd:.0%} of all its places are odd; in normal images {ODD:.0%} are."
    return (
        f"The boxed place is unlike anything learned. As odd as that: {rarity}."
        f"{others if odd > WIDESPREAD else ''}"
    )


def _network_input(workspace: Workspace, row: int) -> np.ndarray:
    """(channels, S, S) uint8 of a training image, from its thumbnail."""
    with Image.open(io.BytesIO(workspace.bank.images.thumbnails[row])) as thumbnail:
        return workspace.classifier.preprocessing.pixels(thumbnail.convert("RGB"))


@st.cache_data(max_entries=512, show_spinner="Looking where it is unusual ...")
def _patch_map(
    path: str, sha256: str, _workspace: Workspace, _pixels: np.ndarray
) -> PatchMap | None:
    return _workspace.patch_map(_pixels)
