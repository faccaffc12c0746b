"""Ways to look through the training images, each with the doubt that orders them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.audit import Audit, reasons


@dataclass(frozen=True)
class DoubtList:
    """One way to look.

    Attributes:
        title: for people.
        meaning: one line in plain words.
        score: the doubt that orders it, the most doubtful first.
        member: (N,) bool, who is in it.
        column: heading of the doubt.
    """

    title: str
    meaning: str
    score: Callable[[Audit], np.ndarray]
    member: Callable[[Audit], np.ndarray]
    column: str


LISTS = {
    "labels": DoubtList(
        "Wrong labels",
        "A last layer that was fitted without the image gives it another label, and surely so. "
        "Most of these are mistakes; some are only hard. The network itself has seen these labels, "
        "so what it has learned by heart escapes.",
        lambda audit: audit.suspicion,
        lambda audit: audit.flagged,
        "Doubt",
    ),
    "duplicates": DoubtList(
        "Copies",
        "The very same picture twice or more, pixel by pixel, listed together. Copies with "
        "different labels are certain mistakes.",
        lambda audit: -audit.duplicates.astype(float),
        lambda audit: (audit.duplicates >= 0) | audit.leaks,
        "Copy",
    ),
    "odd": DoubtList(
        "Odd ones",
        "Far from every other training image: rare kinds, damaged files, things of another class.",
        lambda audit: audit.isolation,
        lambda audit: reasons(audit)["odd"],
        "Distance",
    ),
    "harmful": DoubtList(
        "Hurting the classifier",
        "Without it the last layer would make smaller mistakes on the calibration images, as "
        "influence predicts. Many are right but unusual: look before removing.",
        lambda audit: audit.harm,
        lambda audit: reasons(audit)["harmful"],
        "Harm",
    ),
    "all": DoubtList(
        "All",
        "Every training image, those with the most doubtful labels first.",
        lambda audit: audit.suspicion,
        lambda audit: np.ones(len(audit.margin), bool),
        "Doubt",
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
