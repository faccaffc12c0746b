"""How far the lists of training images can be trusted in this workspace."""

from collections.abc import Mapping

import streamlit as st

from app.manifest import WorkspaceError
from app.networks import Agreement
from app.workspace import Workspace
from explain.head import AGREEMENT, L2
from explain.kfac import KFACInfluence
from explain.network import L2 as NETWORK_L2
from explain.trust import LEFT_OUT

_GOOD, _SOME = 0.95, 0.8


def show_trust(workspace: Workspace) -> None:
    """What was checked, what was chosen, and what influence on the last layer means."""
    if workspace.influence is None:
        return
    with st.expander("How far to trust this", icon=":material/rule:"):
        if isinstance(workspace.influence, KFACInfluence):
            st.markdown(
                "**Not checked.** The last layer of this model is too large to be refitted, so "
                "nothing was left out in truth. Its curvature is approximated (EK-FAC), damped by "
                f"{L2:g}: the order of the images is an estimate, the sizes of their effects are "
                "rough."
            )
        elif workspace.manifest.refit is not None:
            for sentence in check_sentences(workspace.manifest.refit):
                st.markdown(sentence)
        st.markdown(
            "**Only the last layer is asked.** What it sees in an image was learned from the same "
            "training images, and is taken as given. So the lists say which images the last step "
            "of the answer rests on, not what a network that is trained anew without them would "
            "say. An image can also have taught it what to look at: that is not counted here."
        )
        _show_agreement(workspace)


def check_sentences(refit: Mapping[str, float]) -> list[str]:
    """What leaving single training images out has shown, as Markdown.

    Args:
        refit: see `Manifest.refit`.
    """
    pearson, slope = refit["newton_pearson"], refit["newton_slope"]
    order = refit["newton_spearman"]
    if order >= _GOOD and pearson >= _GOOD and abs(slope - 1) <= 0.1:
        verdict = "Prediction and truth nearly agree, in order and in size."
    elif order >= _SOME:
        verdict = "The order can be trusted, the size of an effect is rough."
    else:
        verdict = "Do not rely on predictions here: refit without the images to be sure."
    return [
        f"**Checked in truth.** {verdict} Some {LEFT_OUT} training images were left out, one at a "
        "time, and the last layer refitted. The sizes shown, of one Newton step without that "
        f"image, correlate {pearson:.3f} (their ranks {order:.3f}) with the actual effects on "
        f"held-out images, which are {slope:.2f} times them. Influence alone, by which images are "
        f"ranked, correlates {refit['pearson']:.3f} (in ranks {refit['spearman']:.3f}; "
        f"{refit['slope']:.2f} times).",
        f"**The refit.** Influence is on the last layer refitted to its optimum. It answers as "
        f"the network does for {refit['agreement']:.1%} of the training images; where it does "
        "not, the page says so."
        + f" Its penalty, {refit['l2']:g}, damps the influences too. It is not tuned on what is "
        f"shown: {_rule(refit['agreement'])}",
    ]


def _rule(agreement: float) -> str:
    """How the penalty was chosen."""
    if agreement < AGREEMENT:
        return (
            "of seven it is the one with which the answers agree most. With none do they agree "
            f"for {AGREEMENT:.0%}, as they should."
        )
    return (
        f"of seven it is the largest with which the answers agree for {AGREEMENT:.0%}, since under "
        "a larger one an answer rests on more images and effects are steadier."
    )


def agreement_words(correlation: float) -> str:
    """A rank correlation in words, after "they"."""
    if correlation >= 0.7:
        return "agree well"
    return "agree in part" if correlation >= 0.3 else "hardly agree"


def _show_agreement(workspace: Workspace) -> None:
    try:
        found = Agreement.read(workspace.path)
    except WorkspaceError as error:
        st.warning(str(error), icon=":material/warning:")
        return
    if found is None:
        return
    several = f"the mean of {found.networks} networks" if found.networks > 1 else "the network"
    said = (
        f"**All layers beside the last.** Asked about {found.images} held-out images, as their "
        f"small pictures show them, {several} "
        f"and its last layer alone {agreement_words(found.with_head)}: the ranks of the training "
        f"images correlate {found.with_head:.2f}. Its penalty is {NETWORK_L2:g}, the same in "
        "every workspace."
    )
    if found.between is not None:
        said += (
            f" Two of the networks {agreement_words(found.between)} with each other, "
            f"{found.between:.2f}: the list of one alone would be about that steady."
        )
    st.markdown(said)
