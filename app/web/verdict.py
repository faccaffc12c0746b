"""The verdict on one image."""

import pandas as pd
import streamlit as st

from app.inspection import Inspection
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
from app.workspace import Workspace
from ood.decision import Decision, Rule, decide

PICTURE_SIDE = 280


def show_verdict(
    workspace: Workspace,
    image: UploadedImage,
    inspection: Inspection,
    row: int,
    decision: Decision,
    rule: Rule,
    *,
    named: str,
    numbers: bool,
) -> None:
    """Picture, verdict, sentence, histogram; all detectors when numbers are wanted.

    `named` is the class that a person named and that it belongs to; "" for none.
    """
    name = workspace.classes[decision.predicted]
    left, right = st.columns([2, 5], gap="medium")
    with left:
        st.image(enlarged(image.picture, PICTURE_SIDE), width="stretch", alt=image.name)
        facts = f"{literal(image.name)}  \n{image.width} x {image.height} pixels"
        st.caption(facts + (f"  \n{image.note}" if image.note else ""))
    with right:
        if named:
            st.badge(f"Named here: {plain(named)}", icon=":material/school:", color="blue")
            st.markdown(
                f"It belongs to **{plain(named)}**, a class that the classifier was not trained on "
                "and that a person named on *Novelty*. What follows is about the classes it was "
                "trained on."
            )
        st.badge(
            decision.verdict.capitalize(),
            icon=VERDICT_ICON[decision.verdict],
            color=VERDICT_COLOUR[decision.verdict],  # type: ignore[arg-type]
        )
        st.subheader(verdict_sentence(decision), anchor=False)
        confidence = float(inspection.confidence[row])
        st.markdown(confidence_sentence(decision, plain(name), confidence))
        st.markdown(f"**{advice(decision, confidence)}**")
        st.plotly_chart(
            score_histogram(
                workspace.reference(rule, decision.predicted).scores,
                workspace.threshold(rule, decision.predicted),
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
    infos = workspace.panel.infos
    scored = [name for name in infos if name in inspection.scores]
    names = [decision.detector, *(name for name in scored if name != decision.detector)]
    opinions = [
        decide(
            inspection.p_values[name][row : row + 1], inspection.predicted[row : row + 1],
            level=decision.level, calibration_size=len(workspace.conformal[name]), detector=name,
        )[0]
        for name in names
    ]  # fmt: skip
    flagged = sum(opinion.flagged for opinion in opinions)
    st.markdown(f"##### All detectors: {flagged} of {len(opinions)} flag it")
    table = pd.DataFrame(
        {
            "Detector": [infos[name].title for name in names],
            "Asks": [infos[name].question for name in names],
            "Verdict": [opinion.verdict.value for opinion in opinions],
            "p-value": [opinion.p_value for opinion in opinions],
            "Score": [float(inspection.scores[name][row]) for name in names],
            "Source": [
                f"{paper.authors}, {paper.venue} {paper.year}"
                for paper in (infos[name].paper for name in names)
            ],
        }
    )
    st.dataframe(
        table,
        hide_index=True,
        height=min(38 + 35 * len(names), 400),
        column_config={
            "p-value": st.column_config.NumberColumn(format="%.4f"),
            "Score": st.column_config.NumberColumn(
                format="%.3f", help="Larger is odder; scales differ between detectors."
            ),
        },
    )
    st.caption(
        "The first one decides. A p-value is the share of normal images that look at least as odd "
        "to that detector, here over all classes and on average over calibration sets."
    )
