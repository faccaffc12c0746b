"""What goes into a watched stream and what comes out."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ood.monitoring.settings import Settings, Strategy

if TYPE_CHECKING:
    from app.inspection import Inspection
    from app.uploads import UploadedImage
    from app.workspace import Workspace

NO_CLASS = -1


@dataclass(frozen=True)
class Arrival:
    """An image that comes along a stream, or the score of one.

    Attributes:
        name: of the file; for showing only.
        sha256: of its pixels, in hex; "" for a score without an image.
        score: larger means more outlying; finite.
        p_value: the conformal one of that score.
        predicted: index of the class; -1 for a score without an image.
        picture: any image file that `decode_image` takes, stored as `plain_picture` says; b"" for
            a score without an image.
        source: what it is known by where it came from; of those of one source only the first is
            taken. "" where it may come again.
    """

    name: str
    sha256: str
    score: float
    p_value: float
    predicted: int
    picture: bytes = field(repr=False)
    source: str = ""


@dataclass(frozen=True)
class RefusedFile:
    """A file of a stream that no score can be given; `source` as in `Arrival`."""

    name: str
    reason: str
    source: str


@dataclass(frozen=True)
class Question:
    """What the operator is asked: is this one known or unknown?

    Attributes:
        item: its number in the stream, from 1.
        name: of the file.
        sha256: of its pixels; "" for a score without an image.
        picture: WebP; b"" for a score without an image.
        score: larger means more outlying.
        p_value: the conformal one of that score.
        predicted: index of the class; -1 for a score without an image.
        flagged: whether it was; else it is an audit of an accepted image.
    """

    item: int
    name: str
    sha256: str
    picture: bytes = field(repr=False)
    score: float
    p_value: float
    predicted: int
    flagged: bool


@dataclass(frozen=True)
class StreamInfo:
    """A stream in the store.

    Attributes:
        number: by which it is opened.
        name: unique in its workspace.
        created: in UTC, ISO 8601.
        settings: of its monitor.
        items: images so far.
    """

    number: int
    name: str
    created: str
    settings: Settings
    items: int


def arrivals_of(
    workspace: "Workspace", images: "Sequence[UploadedImage]", inspection: "Inspection"
) -> list[Arrival]:
    """Inspected images, by the score of the workspace's default detector.

    Args:
        workspace: that inspected them.
        images: N of them.
        inspection: theirs, N rows.
    """
    detector = workspace.manifest.detector
    scores, p_values = inspection.scores[detector], inspection.p_values[detector]
    return [
        Arrival(
            name=image.name,
            sha256=image.sha256,
            score=float(scores[row]),
            p_value=float(p_values[row]),
            predicted=int(inspection.predicted[row]),
            picture=image.picture,
        )
        for row, image in enumerate(images)
    ]


def calibration_of(workspace: "Workspace") -> np.ndarray:
    """(n,) float64 scores of the calibration images by the default detector."""
    return np.asarray(workspace.calibration_scores[workspace.manifest.detector], np.float64)


def with_own_seed(settings: Settings) -> Settings:
    """The same with a seed that nobody can know: for a stream that is to share coins with none."""
    return replace(settings, seed=secrets.randbits(62))


def settings_to_json(settings: Settings) -> str:
    """As text that `settings_from_json` reads to the same numbers."""
    return json.dumps(asdict(settings))


def settings_from_json(text: str) -> Settings:
    """Settings that were stored.

    Raises:
        ValueError, TypeError: when they are not settings.
    """
    fields = json.loads(text)
    return Settings(**fields | {"strategy": Strategy(fields["strategy"])})
