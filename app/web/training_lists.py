"""Ways to look through the training images, each with the doubt that orders them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from app.audit import Audit, reasons

Score = Callable[[Audit], np.ndarray]


@dataclass(frozen=True)
class DoubtList:
    """One way to look.

    Attributes:
        title: for people.
        meaning: one line in plain words.
        member: (N,) bool, who is in it.
        columns: heading to the doubt below it; the first orders the list, the most doubtful first.
    """

    title: str
    meaning: str
    member: Score
    columns: Mapping[str, Score]

    @property
    def score(self) -> Score:
        """The doubt that orders it."""
        return next(iter(self.columns.values()))


_DOUBT: Mapping[str, Score] = {"Doubt": lambda audit: audit.suspicion}

COLUMN_HELP = {
    "Doubt": "All witnesses together: log odds that the label is wrong, up to a constant.",
    "Head": "How surely a last layer fitted without the image gives it another label, 0 to 1 "
    "(normalised margin).",
    "Neighbours": "Share of its nearest training images that have another label.",
    "Trees": "Share of decision trees, grown without the image, that give it another label "
    "(Data-OOB).",
    "Training": "How far another class led its label while it was learned, in logits, the mean "
    "over epochs (AUM).",
    "Harm": "How much less the mistakes on the chosen images would weigh without it.",
    "Damage": "To a vote of nearest neighbours: its Shapley value, sign turned round.",
    "Distance": "To its nearest other training image, of features of length one.",
    "Copy": "The number of its group of copies; -1 for a copy of a calibration image.",
}

LISTS = {
    "labels": DoubtList(
        "Wrong labels",
        "A last layer that was fitted without the image, and its neighbours, give it another "
        "label. Many of these are mistakes, others are only hard. The network itself has seen "
        "these labels, so some that it has learned by heart escape.",
        lambda audit: audit.flagged,
        {
            **_DOUBT,
            "Head": lambda audit: audit.margin,
            "Neighbours": lambda audit: audit.disagreement,
            "Trees": lambda audit: audit.out_of_bag,
            "Training": lambda audit: audit.area_under_margin,
        },
    ),
    "duplicates": DoubtList(
        "Copies",
        "The same picture twice or more, exactly or nearly, listed together; and pictures that are "
        "among the calibration images too, on which it then looks better than it is. Where equal "
        "pictures have different labels, one is a mistake.",
        lambda audit: (audit.duplicates >= 0) | (audit.leaks >= 0),
        {"Copy": lambda audit: audit.duplicates.astype(float)},
    ),
    "odd": DoubtList(
        "Odd ones",
        "Far from every other training image: rare kinds, damaged files, things of another class.",
        lambda audit: reasons(audit)["odd"],
        {"Distance": lambda audit: audit.isolation, **_DOUBT},
    ),
    "harmful": DoubtList(
        "Hurting the classifier",
        "Without it the last layer would make smaller mistakes on the images chosen here, as "
        "influence predicts. Many are right but unusual: look before removing.",
        lambda audit: reasons(audit)["harmful"],
        {"Harm": lambda audit: audit.harm, **_DOUBT},
    ),
    "worthless": DoubtList(
        "Worth least",
        "On average over sets of training images, a vote of nearest neighbours on some calibration "
        "images does better without them. Often wrongly labelled, or alike to another class.",
        lambda audit: reasons(audit)["worthless"],
        {"Damage": lambda audit: audit.worthlessness, **_DOUBT},
    ),
    "all": DoubtList(
        "All",
        "Every training image, those with the most doubtful labels first.",
        lambda audit: np.ones(len(audit.margin), bool),
        _DOUBT,
    ),
    "map": DoubtList(
        "From the map",
        "What you drew around, those with the most doubtful labels first.",
        lambda audit: np.ones(len(audit.margin), bool),
        _DOUBT,
    ),
}


def ordered(audit: Audit, name: str, labels: np.ndarray, label: int | None) -> np.ndarray:
    """Rows of a list, the most doubtful first; of one class only where a label is given."""
    chosen = LISTS[name]
    member = chosen.member(audit)
    if label is not None:
        member = member & (labels == label)
    rows = np.flatnonzero(member)
    return rows[np.argsort(-chosen.score(audit)[rows], kind="stable")]
