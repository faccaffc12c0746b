"""All detectors on one set, as a sentence and a table."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from app.comparison import LEAK_MARGIN, Comparison, Contender
from app.comparison_tables import interval
from app.web.detector_sets import OutlierSet
from app.web.state import Session

DETECTOR_KEY = "detector"
_COLUMNS = {
    "auroc": "AUROC",
    "fpr95_id_positive": "Unknown missed",
    "fpr95_ood_positive": "Known flagged",
    "aupr_in": "AUPR known",
    "aupr_out": "AUPR unknown",
}
_UNIT = {"fpr95_id_positive": 100, "fpr95_ood_positive": 100}  # shown as percent
_INTERVAL_WIDTH = 158
_HELP = {
    "auroc": "Of a known image and one of this set, how often the second one scores higher. "
    "0.5 is chance.",
    "fpr95_id_positive": "FPR95 with known images as positives (Liang, Li and Srikant, 2018): the "
    "share of this set still accepted where 95% of the known images are accepted. Small is good.",
    "fpr95_ood_positive": "FPR95 with unknown images as positives (OpenOOD, pytorch-ood): the "
    "share of known images flagged where 95% of this set is flagged. Small is good.",
    "aupr_in": "AUPR-in: average precision of finding known images. Depends on how many images "
    "of each kind there are.",
    "aupr_out": "AUPR-out: average precision of finding the images of this set. Depends on how "
    "many images of each kind there are.",
}


def show_outcome(compared: Sequence[Comparison], chosen: OutlierSet) -> None:
    """How the deciding detector fares, in a sentence."""
    place, decides = next((n, c) for n, c in enumerate(compared, 1) if c.contender.decides)
    best = compared[0]
    said = (
        f"**{chosen.title}** ({len(chosen):,} images): of one known image and one of these, "
        f"**{decides.contender.title}** finds the odd one in **{decides.metrics.auroc:.1%}** of "
        f"pairs, place {place} of {len(compared)}."
    )
    if place > 1:
        overlap = "" if best.low.auroc > decides.high.auroc else "; their intervals overlap"
        said += f" Best is {best.contender.title} with {best.metrics.auroc:.1%}{overlap}."
    st.markdown(said)


def show_comparison(
    compared: Sequence[Comparison], chosen: OutlierSet, state: Session, *, numbers: bool
) -> None:
    """All detectors; a click shows one below."""
    names = [c.detector for c in compared]
    key = f"compared-{chosen.key}-{state.steps}"
    shown = st.session_state.get(DETECTOR_KEY)
    shown = shown if shown in names else deciding(compared).detector
    st.dataframe(
        _table(compared, numbers=numbers),
        key=key,
        hide_index=True,
        height=min(38 + 35 * len(compared), 423),
        on_select=partial(_select_from_table, key, names),
        selection_mode="single-cell",  # a click anywhere in the row
        selection_default={"selection": {"cells": [(names.index(shown), "Detector")]}},
        column_config=_column_config(numbers=numbers),
        alt="Detectors, the best AUROC first",
    )
    st.caption(
        "★ decides in this workspace. Click one to see its scores. Known images are the "
        f"{compared[0].known:,} held out from training. Intervals hold 95%, for the chance of "
        "which images were tested (bootstrap)."
    )
    remembered = [c.contender.title for c in compared if not c.contender.leak.near_half]
    if remembered:
        st.warning(
            "**Training images give themselves away** to "
            f"{', '.join(remembered)}: what these measure on training images says nothing.",
            icon=":material/warning:",
        )


def starred(contender: Contender) -> str:
    """Its title, marked when it decides."""
    return f"★ {contender.title}" if contender.decides else contender.title


def deciding(compared: Sequence[Comparison]) -> Comparison:
    """The one by which the workspace decides."""
    return next(c for c in compared if c.contender.decides)


def _table(compared: Sequence[Comparison], *, numbers: bool) -> pd.DataFrame:
    """Sortable; with numbers every measure with its interval, as text."""
    rows = []
    for c in compared:
        measures, low, high = map(asdict, (c.metrics, c.low, c.high))
        row: dict[str, object] = {"Detector": starred(c.contender)}
        for name, column in _COLUMNS.items():
            ends = measures[name], low[name], high[name]
            row[column] = interval(*ends) if numbers else measures[name] * _UNIT.get(name, 1)
            if name == "auroc" and not numbers:
                row["95% interval"] = f"{low[name]:.3f} to {high[name]:.3f}"
        leak = c.contender.leak
        sign = "✓" if leak.near_half else "✕"
        said = interval(leak.auroc, leak.low, leak.high) if numbers else f"{leak.auroc:.3f}"
        row["µs an image"] = c.contender.us_per_image
        row["Leak check"] = f"{sign} {said}"
        rows.append(row)
    return pd.DataFrame(rows)


def _column_config(*, numbers: bool) -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    measures = {
        column: text(help=_HELP[name], width=_INTERVAL_WIDTH)
        if numbers
        else number(format="%.1f%%" if name in _UNIT else "%.3f", help=_HELP[name])
        for name, column in _COLUMNS.items()
    }
    return {
        "Detector": text(width="medium"),
        **measures,
        "µs an image": number(
            format="%.1f",
            help="Microseconds after the classifier's pass, measured here and now. Of a "
            "combination: its four members together; of ODIN: its own passes.",
        ),
        "Leak check": text(
            help="AUROC of training against held-out images, both of known classes: near 0.5 for "
            "a detector that knows classes. Far below, it remembers its training images; far "
            "above, the held-out images are of another kind. ✕ marks an interval that stays "
            f"outside {0.5 - LEAK_MARGIN:g} to {0.5 + LEAK_MARGIN:g}.",
        ),
    }


def _select_from_table(key: str, names: Sequence[str]) -> None:
    cells = st.session_state[key]["selection"]["cells"]
    if cells and cells[0][0] < len(names):
        st.session_state[DETECTOR_KEY] = names[cells[0][0]]
