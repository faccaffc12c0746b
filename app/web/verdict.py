"""The verdict on one image."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from app.uploads import UploadedImage
from app.web.charts import score_histogram
from app.web.pictures import enlarged
from app.web.wording import (
    VERDICT_COLOUR,
    VERDICT_ICON,
    advice,
    confidence_sentence,
    literal,
    plain,
    verdict_sentence,
)
from app.workspace import Inspection, Workspace
from ood.decision import Decision, decide

PICTURE_SIDE = 280


def show_verdict(
    workspace: Workspace,
    image: UploadedImage,
    inspection: Inspection,
    row: int,
    decision: Decision,
    *,
    numbers: bool,
) -> None:
    """Picture, verdict, sentence, histogram; all detectors when numbers are wanted."""
    name = workspace.classes[decision.predicted]
    size = len(workspace.conformal[decision.detector])
    left, right = st.columns([2, 5], gap="medium")
    with left:
        st.image(enlarged(image.picture, PICTURE_SIDE), width="stretch", alt=image.name)
        facts = f"{literal(image.name)}  \n{image.width} x {image.height} pixels"
        st.caption(facts + (f"  \n{image.note}" if image.note else ""))
    with right:
        st.badge(
            decision.verdict.capitalize(),
            icon=VERDICT_ICON[decision.verdict],
            color=VERDICT_COLOUR[decision.verdict],  # type: ignore[arg-type]
        )
        st.subheader(verdict_sentence(decision, size), anchor=False)
        confidence = float(inspection.confidence[row])
        st.markdown(confidence_sentence(decision, plain(name), confidence))
        st.markdown(f"**{advice(decision, confidence)}**")
        conformal = workspace.conformal[decision.detector]
        st.plotly_chart(
            score_histogram(
                conformal.scores,
                conformal.threshold(decision.level),
                float(inspection.scores[decision.detector][row]),
                decision.verdict,
            ),
            key="histogram",
            config={"displayModeBar": False},
            alt="How odd this image is among normal images held out from training",
        )
    if numbers:
        _show_detectors(workspace, inspection, row, decision)


def _show_detectors(
    workspace: Workspace, inspection: Inspection, row: int, decision: Decision
) -> None:
    opinions = [
        decide(
            inspection.p_values[name][row : row + 1], inspection.predicted[row : row + 1],
            level=decision.level, calibration_size=len(workspace.conformal[name]), detector=name,
        )[0]
        for name in workspace.detectors
    ]  # fmt: skip
    st.markdown(f"##### All detectors: {_agreement(opinions)}")
    table = pd.DataFrame(
        {
            "Detector": [d.info.title for d in workspace.detectors.values()],
            "Asks": [d.info.question for d in workspace.detectors.values()],
            "Verdict": [opinion.verdict.value for opinion in opinions],
            "p-value": [opinion.p_value for opinion in opinions],
            "Score": [float(inspection.scores[name][row]) for name in workspace.detectors],
            "Source": [
                f"{d.info.paper.authors}, {d.info.paper.venue} {d.info.paper.year}"
                for d in workspace.detectors.values()
            ],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        column_config={
            "p-value": st.column_config.NumberColumn(format="%.4f"),
            "Score": st.column_config.NumberColumn(
                format="%.3f", help="Larger is odder; scales differ between detectors."
            ),
        },
    )
    st.caption(
        "The first one decides. A p-value is the share of normal images that look at least as odd "
        "to that detector."
    )


def _agreement(opinions: Sequence[Decision]) -> str:
    flagged = sum(opinion.flagged for opinion in opinions)
    if flagged in (0, len(opinions)):
        return "they agree"
    return f"{flagged} of {len(opinions)} flag it"
