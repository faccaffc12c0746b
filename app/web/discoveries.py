"""What can be said of a batch as a whole: who stands out, how many are false, is it still alike."""

import numpy as np
import streamlit as st

from app.inspection import Inspection
from app.web.job import Batch
from app.workspace import Workspace
from ood.combination import MEMBERS
from ood.decision import Rule
from ood.exchangeability import ALARM, check_exchangeability
from ood.fdr import (
    benjamini_hochberg,
    conformal_e_values,
    e_benjamini_hochberg,
    largest_batch_for_lone_outlier,
    storey,
)
from ood.simultaneous import FalseDiscoveryEnvelope

FALSE_DISCOVERY_RATE = 0.1
DRIFT_LEVEL = 0.05
_BH, _STOREY, _E_BH = "Benjamini-Hochberg", "Storey", "e-values of four detectors"
_SMALLEST_DRIFT = 20


def show_drift(workspace: Workspace, inspection: Inspection) -> None:
    """Say so when the images that are not flagged are no longer like the calibration images."""
    detector = workspace.manifest.detector
    scores, conformal = inspection.scores[detector], workspace.conformal[detector]
    check = check_exchangeability(scores, conformal.scores, DRIFT_LEVEL)
    if check.alarm:
        st.warning(
            "**The error rate may no longer hold.** Even the images that are not flagged at "
            f"{DRIFT_LEVEL:.0%} differ from the normal images held out: another camera, another "
            "crop, another mix of classes? In a batch like those this is said in at most "
            f"{1 / ALARM:.0%} of cases.",
            icon=":material/warning:",
        )
    elif len(scores) >= _SMALLEST_DRIFT and check.images < len(scores) / 2:
        st.info(
            f"More than half of this batch is flagged at {DRIFT_LEVEL:.0%}. Either most of it is "
            "unknown, or it comes from another camera and the error rate does not hold: this "
            "cannot be told apart here.",
            icon=":material/info:",
        )


def show_discoveries(
    workspace: Workspace, batch: Batch, inspection: Inspection, rule: Rule, *, numbers: bool
) -> np.ndarray:
    """Which images stand out with false-discovery control over the batch; returns (N,) bool."""
    detector = workspace.manifest.detector
    method = _BH
    if numbers:
        method = st.segmented_control(
            "Stands out by",
            [_BH, _STOREY, _E_BH],
            default=_BH,
            required=True,
            key="discoveries",
            help="Storey estimates how many images are normal, and finds more where few are. "
            "The last joins four detectors by e-values, valid however they depend on each other. "
            "Choose before you look: the 10% holds for one way, not for the best of three.",
        )
    found = _select(workspace, inspection, method)
    p_values = inspection.p_values[detector]
    size = len(workspace.conformal[detector])
    said = (
        f"**{found.sum():,}** of these {len(found):,} images stand out from the batch as a whole: "
        f"in such a list, whatever the level above, at most {FALSE_DISCOVERY_RATE:.0%} normal "
        "images are to be expected if normal ones are like those held out."
    )
    if not rule.by_class and not rule.method:
        flagged = int((p_values <= rule.level).sum())
        envelope = FalseDiscoveryEnvelope.simulate(len(p_values), size)
        false = envelope.bound(p_values, rule.level)
        if flagged:
            said += (
                f" Of the **{flagged:,}** flagged at {rule.level:.1%}, with 95% confidence "
                f"{_at_most(false, flagged)}, wherever you move the level."
            )
    st.markdown(said)
    rate = FALSE_DISCOVERY_RATE / 2 if method == _E_BH else FALSE_DISCOVERY_RATE
    largest = largest_batch_for_lone_outlier(rate, size)
    if len(found) > largest:
        st.caption(
            f":material/info: With {size:,} calibration images a single unknown image "
            f"can stand out among at most {largest:,}; in this batch only several together can. "
            "Look at the verdicts of single images too."
        )
    return found


def _select(workspace: Workspace, inspection: Inspection, method: str) -> np.ndarray:
    p_values = inspection.p_values[workspace.manifest.detector]
    if method == _STOREY:
        return storey(p_values, FALSE_DISCOVERY_RATE)
    if method == _E_BH:
        # Half the rate for the e-values of each: their mean then still reaches the bar.
        e_values = [
            conformal_e_values(
                inspection.scores[name], workspace.conformal[name].scores, FALSE_DISCOVERY_RATE / 2
            )
            for name in MEMBERS
        ]
        return e_benjamini_hochberg(np.mean(e_values, axis=0), FALSE_DISCOVERY_RATE)
    return benjamini_hochberg(p_values, FALSE_DISCOVERY_RATE)


def _at_most(false: int, flagged: int) -> str:
    if false == 0:
        return "not one is a normal image"
    if false >= flagged:
        return "it cannot be ruled out that all are normal images"
    return f"at most {false:,} are normal images"
