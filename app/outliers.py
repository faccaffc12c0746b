"""Ready-made sets of outliers: what to compare detectors on where nobody brings images.

A set's name is a slug: "blends", "corruption-blur-3", "unknown-Bag".
"""

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from app.manifest import WorkspaceError
from models.classifier import Classifier
from models.images import ImageRefused
from models.imagesets import ImageFolder
from models.observed import ObservedSet, stored_name
from ood import synthetic
from ood.synthetic import CORRUPTIONS, SEVERITIES

Scores = dict[str, np.ndarray]

SET_SIZE = 500
UNKNOWN_SIZE = 1_000
HARDEST = max(SEVERITIES)
# Made of held-out images, so that they can choose a detector for a workspace.
CHOOSING = ("blends", "halves", "shuffled", *(f"corruption-{c}-{HARDEST}" for c in CORRUPTIONS))


def read_pixels(
    classifier: Classifier, folder: ImageFolder, images: ObservedSet, rows: np.ndarray
) -> np.ndarray:
    """The network's input of images that were observed before: (n, channels, S, S) uint8.

    Raises:
        WorkspaceError: when a file can no longer be read.
    """
    place = {stored_name(name): row for row, name in enumerate(folder.names)}
    wanted = [place[images.name(int(row))] for row in rows]
    preprocessing = classifier.preprocessing
    read = folder.read(wanted, lambda decoded: preprocessing.pixels(decoded.image))
    found = []
    for row, pixels in zip(wanted, read, strict=True):
        if isinstance(pixels, ImageRefused):
            raise WorkspaceError(
                f"{folder.root / folder.names[row]} could be read before, and now cannot: {pixels}"
            )
        found.append(pixels)
    return np.stack(found)


def made_sets(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pixels of sets made by rule.

    Args:
        images: (N, channels, S, S) uint8, held out from training.
        labels: (N,) their classes.
    """
    shape = images.shape[1:]
    yield "blends", synthetic.blends(images, labels)
    yield "halves", synthetic.halves(images, labels)
    yield "shuffled", synthetic.shuffled_patches(images)
    for kind, corrupt in CORRUPTIONS.items():
        for severity in SEVERITIES:
            yield f"corruption-{kind}-{severity}", corrupt(images, severity)
    yield "digits", synthetic.digits(SET_SIZE, shape)
    yield "textures", synthetic.textures(SET_SIZE, shape)
    yield "noise", synthetic.noise(SET_SIZE, shape)


def unknown_sets(classifier: Classifier, folder: ImageFolder) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pixels of the classes in a folder, at most 1,000 images each, spread evenly."""
    labels = np.asarray(folder.labels)
    for label, name in enumerate(folder.classes):
        rows = np.flatnonzero(labels == label)
        rows = rows[:: -(-len(rows) // UNKNOWN_SIZE)].tolist()
        read = folder.read(rows, lambda decoded: classifier.preprocessing.pixels(decoded.image))
        pixels = [image for image in tqdm(read, desc=name) if not isinstance(image, ImageRefused)]
        if pixels:
            yield f"unknown-{name}", np.stack(pixels)


def read_outliers(stored: Scores) -> dict[str, Scores]:
    """What preparing a workspace stored, as set to detector to scores."""
    outliers: dict[str, Scores] = {}
    for key in sorted(stored):
        name, detector = key.rsplit("/", 1)
        outliers.setdefault(name, {})[detector] = stored[key]
    return outliers
