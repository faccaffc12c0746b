"""What is doubtful about the training images: one number for each doubt and image."""

from dataclasses import dataclass

import numpy as np

AUDIT_FILE = "audit.safetensors"
SHARE_SHOWN = 0.01


@dataclass(frozen=True)
class Audit:
    """Of N training images, everything for one polarity: larger is more doubtful.

    Attributes:
        suspicion: log odds that its label is wrong, up to a constant.
        margin: how surely a last layer fitted without it gives it another label, in [0, 1].
        disagreement: share of its nearest others that have another label.
        area_under_margin: mean over the epochs of training of the best other class's logit less
            its label's; NaN where no epochs were logged.
        out_of_bag: share of trees, grown without it on features, that give it another label.
        harm: by how much less the mean loss of the calibration images would be without it; zeros
            where there are no influences.
        worthlessness: its negative Shapley value for a nearest-neighbour classifier.
        isolation: distance to its nearest other training image, of unit features.
        suggested: (N,) the class that the others give it, -1 where it is its own.
        flagged: (N,) bool, estimated to be labelled wrongly (confident learning).
        duplicates: (N,) number of its group of copies, equal or nearly, -1 for none.
        leaks: (N,) row of a calibration image that is nearly the same picture, -1 for none.
        groups: (N,) number of its group of images that are alike.
    """

    suspicion: np.ndarray
    margin: np.ndarray
    disagreement: np.ndarray
    area_under_margin: np.ndarray
    out_of_bag: np.ndarray
    harm: np.ndarray
    worthlessness: np.ndarray
    isolation: np.ndarray
    suggested: np.ndarray
    flagged: np.ndarray
    duplicates: np.ndarray
    leaks: np.ndarray
    groups: np.ndarray


def doubtful(audit: Audit) -> np.ndarray:
    """Rows for which there is any reason to doubt them, the most doubtful labels first."""
    rows = np.flatnonzero(np.any(list(reasons(audit).values()), axis=0))
    return rows[np.argsort(-audit.suspicion[rows], kind="stable")]


def reasons(audit: Audit) -> dict[str, np.ndarray]:
    """Name of a reason to doubt a training image to (N,) bool: whom it holds for."""
    return {
        "label": audit.flagged,
        "duplicate": audit.duplicates >= 0,
        "leak": audit.leaks >= 0,
        "odd": _largest(audit.isolation),
        "harmful": _largest(audit.harm) & (audit.harm > 0),
        "worthless": _largest(audit.worthlessness) & (audit.worthlessness > 0),
    }


def _largest(doubt: np.ndarray) -> np.ndarray:
    """The hundredth of the images with the most of it."""
    return doubt > np.quantile(doubt, 1 - SHARE_SHOWN)
