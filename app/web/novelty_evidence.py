"""What speaks for a group being a class, and what against it, in sentences with their numbers."""

from collections.abc import Iterator

import numpy as np
import streamlit as st

from app.candidate_checks import FEWEST_HELD_OUT
from app.discovery import Candidate
from app.web.wording import plain
from app.workspace import Workspace
from ood.cluster_checks import PredictionEntropy, Separation
from ood.clusters import STABLE
from ood.new_class import Proposal

_CLEAR = 0.05


def show_evidence(workspace: Workspace, candidate: Candidate) -> None:
    """A list that opens on demand; the promise comes from the test alone, and it says so."""
    with st.expander("What speaks for a class, and against it", icon=":material/balance:"):
        st.markdown("\n".join(f"- {line}" for line in evidence(workspace, candidate)))
        st.caption(
            "Only the first line bounds the chance of a false alarm; the others help you look."
        )


def evidence(workspace: Workspace, candidate: Candidate) -> Iterator[str]:
    """Lines of Markdown."""
    yield _test(candidate.proof)
    firm = candidate.stability >= STABLE
    if not np.isnan(candidate.stability):
        yield (
            f"**{'Firm' if firm else 'Loose'} group**: with other halves of the images it "
            f"{'stays the same' if firm else 'changes'} (Jaccard {candidate.stability:.2f}; "
            f"{STABLE:.2f} and more is stable)."
        )
    if (apart := candidate.checks.separation) is None:
        yield (
            "**Apart from the known?** Too few images to tell: at least "
            f"{FEWEST_HELD_OUT} that did not form the group have to fall into it."
        )
    else:
        yield from _apart(apart, plain(workspace.classes[apart.nearest]))
    yield _said(candidate.checks.entropy, len(workspace.classes))


def _test(proof: Proposal | None) -> str:
    if proof is None:
        return "**Test on later images**: not passed yet."
    return (
        f"**Test on later images**: passed at image {proof.confirmed_at:,}. Of {proof.items:,} "
        f"images after the group was found {proof.hits:,} fell into its place; of known images at "
        f"most {proof.rate:.2%} do."
    )


def _apart(apart: Separation, nearest: str) -> Iterator[str]:
    two = apart.dip_p <= _CLEAR
    yield (
        f"**{'A gap' if two else 'No clear gap'}** between it and {nearest}, the nearest class: "
        f"on the line between them {'there are two heaps' if two else 'one heap would do'} (dip "
        f"test, p = {apart.dip_p:.3f}, {apart.members:,} images held out)."
    )
    unlike = apart.mmd_p <= _CLEAR
    yield (
        f"**{'Unlike' if unlike else 'Not told apart from'} {nearest}** as a whole (MMD test, p = "
        f"{apart.mmd_p:.3f}). A tail of a class is unlike the class too."
    )


def _said(entropy: PredictionEntropy, classes: int) -> str:
    most = np.log(classes)
    scattered = entropy.of_classes > most / 2
    unsure = entropy.of_images > most / 4
    return (
        f"The classifier **{'scatters' if scattered else 'keeps together'}** them (entropy of the "
        f"classes it says {entropy.of_classes:.2f} of at most {most:.2f}) and is "
        f"{'unsure' if unsure else 'sure'} of each ({entropy.of_images:.2f})."
    )
