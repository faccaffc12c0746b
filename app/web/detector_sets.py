"""Which images detectors are compared on: a ready-made set, or a person's own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from app.outliers import CHOOSING
from app.uploads import MAX_BATCH_BYTES, MAX_BATCH_IMAGES
from app.web.batch import show_refused
from app.web.job import Batch
from app.web.progress import show_progress
from app.web.state import Session
from app.web.wording import literal, plain
from app.workspace import Workspace
from ood.synthetic import CORRUPTIONS, SEVERITIES

OWN_NAME = "your images"
FEW_IMAGES = 50
_CLASSES, _PICTURES, _CORRUPTED = "Unknown classes", "Other pictures", "Damaged pictures"
_MIXED, _OWN = "Mixed-up pictures", "Your own"
_UNKNOWN, _CORRUPTION = "unknown-", "corruption-"
_TITLES = {
    "digits": "Handwritten digits",
    "textures": "Textures",
    "noise": "Noise",
    "blends": "Two classes blended",
    "halves": "Halves of two classes",
    "shuffled": "Patches in random order",
}
_GROUPS = {_PICTURES: ("digits", "textures", "noise"), _MIXED: ("blends", "halves", "shuffled")}
_DAMAGE = {
    "noise": "Grain",
    "blur": "Blur",
    "contrast": "Low contrast",
    "pixelate": "Coarse pixels",
}
_MOST_PILLS = 8


@dataclass(frozen=True)
class OutlierSet:
    """M images that a detector should flag.

    Attributes:
        name: in records.
        title: for people; Markdown, safe.
        key: what caches know it by.
        scores: detector to (M,) scores.
    """

    name: str
    title: str
    key: str
    scores: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.scores.values())))


def set_title(name: str) -> str:
    """A ready-made set in plain words, as Markdown: "Blur, severity 3 of 5"."""
    if name.startswith(_UNKNOWN):
        return f"Unknown class: {plain(name.removeprefix(_UNKNOWN))}"
    if name.startswith(_CORRUPTION):
        kind, severity = name.removeprefix(_CORRUPTION).rsplit("-", 1)
        return f"{_DAMAGE[kind]}, severity {severity} of {max(SEVERITIES)}"
    return _TITLES[name]


def own_session(workspace: Workspace) -> Session:
    """The images that somebody brought to this page, for this workspace alone."""
    key = f"detectors {workspace.key}"
    state: Session = st.session_state.setdefault(key, Session(gradients=True))
    return state


def choose_set(workspace: Workspace) -> OutlierSet | None:
    """The set chosen; None while there is none, which is said."""
    classes = [name for name in workspace.outliers if name.startswith(_UNKNOWN)]
    groups = [_CLASSES] if classes else []
    group = st.segmented_control(
        "Compare them on",
        [*groups, _PICTURES, _CORRUPTED, _MIXED, _OWN],
        default=(groups or [_PICTURES])[0],
        required=True,
        key="group",
        bind="query-params",
    )
    if group == _OWN:
        return _choose_own(workspace)
    if group == _CORRUPTED:
        name = _choose_corruption()
    elif group == _CLASSES:
        name = _pick("Class", classes, lambda name: name.removeprefix(_UNKNOWN), "class")
    else:
        name = _pick("Set", _GROUPS[group], _TITLES.__getitem__, f"set-{group.split('-')[0]}")
    _say_origin(name)
    return OutlierSet(name, set_title(name), name, workspace.outliers[name])


def _choose_corruption() -> str:
    left, right = st.columns([3, 2], gap="large", vertical_alignment="center")
    with left:
        kind = _pick("Damage", list(CORRUPTIONS), _DAMAGE.__getitem__, "damage")
    severity = right.slider(
        "Severity", min(SEVERITIES), max(SEVERITIES), 3, key="severity", bind="query-params"
    )
    return f"{_CORRUPTION}{kind}-{severity}"


def _pick(label: str, options: Sequence[str], title: Callable[[str], str], key: str) -> str:
    if len(options) > _MOST_PILLS:
        return st.selectbox(label, options, format_func=title, key=key)
    return st.pills(
        label, options, default=options[0], format_func=lambda name: plain(title(name)),
        required=True, key=key, label_visibility="collapsed", persist_state="session",
    )  # fmt: skip


def _say_origin(name: str) -> None:
    if name in CHOOSING:
        st.caption(
            "Made of held-out images. The detector that decides was chosen on sets like this: "
            "believe one that it has not been chosen on more."
        )
    elif name.startswith(_CORRUPTION):
        st.caption(
            "Known images made worse. To a classifier that copes with the damage they are no "
            "outliers: the lower the severity, the less should be flagged."
        )


def _choose_own(workspace: Workspace) -> OutlierSet | None:
    state = own_session(workspace)
    _show_drop_area(workspace, state)
    job = state.job
    if job is None:
        st.info(
            "Bring images of things that the classifier does not know: every detector is then "
            "measured on them.",
            icon=":material/add_photo_alternate:",
        )
    elif job.error:
        st.error(job.error, icon=":material/error:")
    elif job.batch is None:
        show_progress(state)
    else:
        return _own_set(job.batch)
    return None


def _show_drop_area(workspace: Workspace, state: Session) -> None:
    left, right = st.columns([3, 2], gap="large", vertical_alignment="center")
    folder = right.toggle("A whole folder", key="whole-folder", persist_state="session")
    right.caption(
        f"At once: {MAX_BATCH_IMAGES:,} images, {MAX_BATCH_BYTES >> 20} MB. They stay on this "
        "page. Without limits: `python -m app compare --ood FOLDER`."
    )
    key = f"outliers-{state.uploads}-{folder}"
    left.file_uploader(
        "Drop images or a zip" if not folder else "Choose a folder of images",
        accept_multiple_files="directory" if folder else True,
        max_upload_size=MAX_BATCH_BYTES >> 20,
        key=key,
        on_change=_start_upload,
        args=(workspace, state, key),
    )


def _start_upload(workspace: Workspace, state: Session, key: str) -> None:
    files = st.session_state[key]
    if files:
        state.start(workspace, [(file.name, file.getvalue()) for file in files], key)
    elif state.source == key:
        state.clear()


def _own_set(batch: Batch) -> OutlierSet | None:
    if batch.refused and batch.inspection is not None:
        show_refused(batch.refused)
    if batch.inspection is None:
        for refused in batch.refused[:20]:
            st.error(f"{literal(refused.name)} {plain(refused.reason)}", icon=":material/block:")
        if not batch.refused:
            st.info("There were no images in there.", icon=":material/image_not_supported:")
        return None
    if len(batch.images) < FEW_IMAGES:
        st.warning(
            f"Only {len(batch.images):,} images: these figures are rough, and the intervals, made "
            f"by drawing from so few, are too narrow. Bring {FEW_IMAGES} or more.",
            icon=":material/warning:",
        )
    return OutlierSet(OWN_NAME, OWN_NAME.capitalize(), batch.digest, batch.inspection.scores)
