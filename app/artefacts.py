"""Whether a group of flagged images may be a fault of the camera, rather than a class."""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from app.sampling import evenly
from app.uploads import THUMBNAIL_SIDE
from app.workspace import Workspace
from ood.cluster_checks import STATISTICS, artefact_z, image_statistics

OUTLYING = 3.5
SIDE = 32
_NORMAL = 1_000
_WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("flatter", "higher in contrast"),
    "sharpness": ("more blurred", "noisier"),
    "black": ("less black", "more black"),
    "size": ("smaller", "larger"),
}


def normal_statistics(workspace: Workspace) -> np.ndarray:
    """(m, 5) of some calibration images, see `image_statistics`."""
    thumbnails = workspace.calibration.images.thumbnails
    return _statistics(thumbnails[row] for row in evenly(len(thumbnails), _NORMAL))


def artefacts(pictures: Iterable[bytes], normal: np.ndarray) -> list[str]:
    """How the pictures differ from normal ones beyond 3.5 robust standard deviations, in words.

    All are compared at 32 pixels; their sizes as thumbnails of them would have them.

    Args:
        pictures: image files of a group, at least one.
        normal: see `normal_statistics`.
    """
    scores = artefact_z(_statistics(pictures), normal)
    return [
        _WORDS[name][int(score > 0)]
        for name, score in zip(STATISTICS, scores, strict=True)
        if abs(score) > OUTLYING
    ]


def _statistics(pictures: Iterable[bytes]) -> np.ndarray:
    small, sizes = [], []
    for picture in pictures:
        with Image.open(io.BytesIO(picture)) as image:
            sizes.append(np.array(image.size) * min(1.0, THUMBNAIL_SIDE / max(image.size)))
            small.append(np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)))
    return image_statistics(np.stack(small)[:, None], np.array(sizes))
