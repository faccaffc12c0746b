"""Which training images taught the whole network, for one image: asked for, since it takes long."""

import numpy as np
import streamlit as st

from app.locations import MANIFEST
from app.manifest import WorkspaceError
from app.networks import NETWORK_FOLDER, NetworkAnswer, ask_networks
from app.uploads import UploadedImage
from app.web.pictures import gallery
from app.web.trust import agreement_words
from app.web.wording import plain
from app.workspace import INFLUENCES_SHOWN, Workspace
from explain.influence import HeadInfluence, Influences
from explain.network import NetworkInfluence


def show_network_list(
    workspace: Workspace, image: UploadedImage, influences: Influences | None, *, numbers: bool
) -> None:
    """The most helpful training images when every layer counts, beside the last layer's."""
    if influences is None or not any((workspace.path / NETWORK_FOLDER).glob(f"*/{MANIFEST}")):
        return
    asked = st.toggle(
        "Ask the whole network",
        key="whole-network",
        help="The lists above are of its last layer. This one counts that the training images "
        "taught every layer. It takes some seconds.",
    )
    if not asked or not (networks := _networks(workspace)):
        return
    target, against = workspace.classes[influences.target], workspace.classes[influences.against]
    answer = _ask(
        workspace.key, image.sha256, influences.target, influences.against, workspace, image.pixels
    )
    st.markdown("#### These taught the whole network")
    whom = "it" if len(networks) == 1 else f"{len(networks)} trainings of it, on average,"
    st.caption(
        f"Had {whom} not learned from them, in any of its layers, it is estimated to lean less to "
        f"{plain(target)} and more to {plain(against)}; no network was trained anew. Images to "
        f"which the others give another label are not shown here. {network_sentence(answer)}"
    )
    if not len(answer.helpful):
        st.caption("None.")
        return
    rows = answer.helpful
    captions = [plain(workspace.classes[workspace.bank.images.labels[row]]) for row in rows]
    if numbers:
        values = answer.influence[rows]
        captions = [f"{n}  \n{v:+.4f}" for n, v in zip(captions, values, strict=True)]
    gallery(workspace, rows, captions)
    if numbers:
        st.caption(_numbers(workspace, answer))


def network_sentence(answer: NetworkAnswer) -> str:
    """How far the list agrees with that of the last layer."""
    count = len(answer.helpful)
    if count == 0:
        return "No training image is found that did."
    shared = {0: "none", count: "all"}.get(answer.shared, f"{answer.shared}")
    return (
        f"Of these {count}, {shared} taught the last layer most, too; over all training images "
        f"the two rankings {agreement_words(answer.with_head)}."
    )


def _numbers(workspace: Workspace, answer: NetworkAnswer) -> str:
    said = (
        f"Numbers: predicted change of the margin if that one image were left out. Over all "
        f"{len(workspace.bank.images):,} training images the ranks correlate "
        f"{answer.with_head:.2f} with those of the last layer"
    )
    if answer.between is None:
        return f"{said}."
    return f"{said}, and {answer.between:.2f} between two trainings."


def _networks(workspace: Workspace) -> list[NetworkInfluence]:
    try:
        with st.spinner("Opening the whole network's gradients ..."):
            return workspace.networks
    except WorkspaceError as error:
        st.warning(str(error), icon=":material/warning:")
        return []


@st.cache_data(max_entries=64, show_spinner="Asking the whole network ...")
def _ask(
    key: str, sha256: str, target: int, against: int, _workspace: Workspace, _pixels: np.ndarray
) -> NetworkAnswer:
    assert isinstance(_workspace.influence, HeadInfluence)  # networks are fitted only beside it
    features = _workspace.classifier.observe(_pixels[None]).features[0]
    return ask_networks(
        _workspace.networks, _workspace.influence, features, _pixels, target, against,
        INFLUENCES_SHOWN, _workspace.trusted,
    )  # fmt: skip
