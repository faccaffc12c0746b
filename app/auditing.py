"""Look at every training image for what is doubtful about it."""

import numpy as np
from tqdm import tqdm

from app.audit import Audit
from app.sampling import evenly
from explain.cross_validation import FOLDS, head_cross_validation
from explain.data_oob import data_oob
from explain.duplicates import near_duplicates
from explain.effects import Slice, group_alike, removal_effects
from explain.influence import HeadInfluence
from explain.label_issues import label_issues
from explain.shapley import knn_shapley
from models.activations import Neighbours
from models.bank import Bank, CalibrationSet

VALUED_ON = 500
TREES = 60
_CHUNK = 4_096


def make_audit(
    bank: Bank, calibration: CalibrationSet, influence: HeadInfluence | None,
    epoch_logits: np.ndarray | None = None,
) -> Audit:  # fmt: skip
    """Everything of `Audit`; a minute for 40,000 images.

    Args:
        bank: the training images.
        calibration: images that they are judged by.
        influence: on the refitted head; None where it cannot be had.
        epoch_logits: (E, N, C) of the training itself, where they were logged.
    """
    images = bank.images
    features, labels = np.asarray(images.activations.features), np.asarray(images.labels)
    held_out = Slice(
        np.asarray(calibration.images.activations.features), np.asarray(calibration.images.labels)
    )
    neighbours = _all_neighbours(bank)
    tqdm.write("look for wrong labels")
    folds = min(FOLDS, len(labels))
    probabilities = head_cross_validation(features, labels, bank.num_classes, folds)
    issues = label_issues(probabilities, labels, neighbours, epoch_logits)
    tqdm.write("compare pictures that may be copies")
    copies = near_duplicates(images, neighbours, calibration)
    leaks = np.full(len(labels), -1)
    leaks[copies.leaks[:, 0]] = copies.leaks[:, 1]
    tqdm.write("value the training images")
    some = evenly(len(held_out), VALUED_ON)
    value = knn_shapley(features, labels, held_out.features[some], held_out.labels[some])
    outside = data_oob(features, labels, TREES)
    harm = np.zeros(len(labels), np.float32)
    if influence is not None:
        harm -= removal_effects(influence, held_out)
    return Audit(
        suspicion=issues.suspicion,
        margin=issues.margin,
        disagreement=issues.disagreement,
        area_under_margin=(
            np.full(len(labels), np.nan, np.float32)
            if issues.area_under_margin is None
            else issues.area_under_margin
        ),
        out_of_bag=1 - np.nan_to_num(outside.values, nan=1).astype(np.float32),
        harm=harm,
        worthlessness=-value.astype(np.float32),
        isolation=_nearest_other(neighbours),
        suggested=issues.suggested,
        flagged=issues.flagged,
        duplicates=copies.groups,
        leaks=leaks,
        groups=group_alike(features, labels),
    )


def _nearest_other(neighbours: Neighbours) -> np.ndarray:
    """(N,) float32; 0 for an image without another. In small sets an image is its own neighbour."""
    own = neighbours.rows == np.arange(len(neighbours.rows))[:, None]
    nearest = np.where(own, np.inf, neighbours.distances).min(axis=1)
    return np.where(np.isfinite(nearest), nearest, 0).astype(np.float32)


def _all_neighbours(bank: Bank) -> Neighbours:
    parts = []
    for start in tqdm(range(0, len(bank.images), _CHUNK), desc="search among training images"):
        rows = np.arange(start, min(start + _CHUNK, len(bank.images)))
        found = bank.locate_own(rows).neighbours
        assert found is not None  # locate_own has just set them
        parts.append(found)
    return Neighbours(
        rows=np.concatenate([part.rows for part in parts]),
        distances=np.concatenate([part.distances for part in parts]),
    )
