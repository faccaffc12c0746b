"""Where images come in: files, zips, samples, the camera."""

from pathlib import Path

import streamlit as st

from app.uploads import MAX_BATCH_BYTES, MAX_BATCH_IMAGES
from app.web.pictures import enlarged
from app.web.state import session
from app.web.wording import plain
from app.workspace import Workspace
from models.images import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS

_TYPES = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "zip"]
_SAMPLE_SIDE = 56


def show_inputs(workspace: Workspace) -> None:
    """The drop area with its limits, and the strip of samples."""
    left, right = st.columns([2, 3], gap="large")
    with left:
        key = f"files-{session().uploads}"
        st.file_uploader(
            "Drop images or a zip",
            type=_TYPES,
            accept_multiple_files=True,
            max_upload_size=MAX_BATCH_BYTES >> 20,
            key=key,
            on_change=_start_upload,
            args=(workspace, key),
        )
        st.caption(
            f"An image: up to {MAX_IMAGE_BYTES >> 20} MB and {MAX_IMAGE_PIXELS // 1_000_000} "
            f"megapixels. At once, or in a zip: {MAX_BATCH_IMAGES:,} images, "
            f"{MAX_BATCH_BYTES >> 20} MB. Of an animation, the first frame."
        )
        camera = st.popover(
            "Use the camera", icon=":material/photo_camera:", on_change="rerun", key="camera"
        )
        if camera.open:
            with camera:
                st.camera_input(
                    "Take a picture",
                    key="photo",
                    on_change=_start_photo,
                    args=(workspace,),
                    label_visibility="collapsed",
                )
    with right:
        st.markdown("Or try one of these")
        grid = st.grid("auto", min_column_width=84, gap=("small", "xsmall"))
        for path in workspace.samples:
            with grid.cell(), st.container(gap="xxsmall"):
                name = sample_name(path)
                st.image(_sample_picture(str(path)), width=_SAMPLE_SIDE, alt=name)
                st.button(
                    plain(name),
                    key=f"sample-{path.name}",
                    type="tertiary",
                    on_click=_start_sample,
                    args=(workspace, path),
                )


def sample_name(path: Path) -> str:
    """The file's name without its number: "Coat" of "03 Coat.png"."""
    number, _, name = path.stem.partition(" ")
    return name if number.isdigit() and name else path.stem


@st.cache_data(max_entries=256)
def _sample_picture(path: str) -> bytes:
    return enlarged(Path(path).read_bytes(), _SAMPLE_SIDE)


def _start_upload(workspace: Workspace, key: str) -> None:
    files = st.session_state[key]
    if files:
        session().start(workspace, [(file.name, file.getvalue()) for file in files], key)
    elif session().source == key:
        # Emptied by hand. A fresh drop area, while the page loads, says "empty" too: not news.
        session().clear()


def _start_photo(workspace: Workspace) -> None:
    photo = st.session_state["photo"]
    if photo is not None:
        session().uploads += 1  # empties the drop area
        session().start(workspace, [("camera.jpg", photo.getvalue())])


def _start_sample(workspace: Workspace, path: Path) -> None:
    session().uploads += 1  # empties the drop area
    session().start(workspace, [(f"sample {path.name}", path.read_bytes())])
