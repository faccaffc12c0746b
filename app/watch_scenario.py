"""Recorded streams to watch: images of the demo that nobody trained on, in an order that is known.

Fashion-MNIST's test images: eight kinds of clothes that the demo's network knows, bags and ankle
boots that it does not.
"""

import io
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from app.workspace import Workspace
from models.fashion import CLASSES, UNKNOWN, read_fashion
from ood.monitoring.payoffs import Answer

_LIGHT, _BLUR = 0.5, 1.0


class Scenario(StrEnum):
    """What happens in a recorded stream."""

    NOTHING = "Nothing changes"
    ABRUPT = "Bags appear at once"
    GRADUAL = "Bags come gradually, and go again"
    TYPES = "Ankle boots, then bags, then ankle boots"
    CAMERA = "A camera fault"


@dataclass(frozen=True)
class Phase:
    """A stretch of a stream.

    Attributes:
        words: what it is, for a person.
        count: images in it.
        start: share of unknown ones at its begin.
        end: at its end; it changes evenly.
        unknown: the class that they are of.
        fault: whether the camera takes dark and blurred pictures.
    """

    words: str
    count: int
    start: float = 0.0
    end: float = 0.0
    unknown: str = "Bag"
    fault: bool = False


PHASES = {
    Scenario.NOTHING: (Phase("one image in ten is a bag, all the time", 3_000, 0.1, 0.1),),
    Scenario.ABRUPT: (
        Phase("a bag now and then", 800, 0.02, 0.02),
        Phase("one image in five is a bag", 2_200, 0.2, 0.2),
    ),
    Scenario.GRADUAL: (
        Phase("a bag now and then", 500, 0.02, 0.02),
        Phase("more and more bags, up to three in ten", 1_000, 0.02, 0.3),
        Phase("fewer and fewer bags", 1_000, 0.3, 0.02),
        Phase("a bag now and then", 500, 0.02, 0.02),
    ),
    Scenario.TYPES: (
        Phase("one image in four is an ankle boot", 1_000, 0.25, 0.25, "Ankle boot"),
        Phase("one image in four is a bag", 1_000, 0.25, 0.25),
        Phase("one image in four is an ankle boot", 1_000, 0.25, 0.25, "Ankle boot"),
    ),
    Scenario.CAMERA: (
        Phase("one image in ten is a bag", 1_000, 0.1, 0.1),
        Phase("the same, but pictures are dark and blurred", 800, 0.1, 0.1, fault=True),
        Phase("the camera is mended", 1_200, 0.1, 0.1),
    ),
}


@dataclass(frozen=True)
class Recording:
    """N images in their order, and what they are.

    Attributes:
        scenario: that it plays.
        pixels: (N, 28, 28) uint8.
        classes: (N,) names of what they show.
        unknown: (N,) bool, the demo's network has never seen their class.
    """

    scenario: Scenario
    pixels: np.ndarray
    classes: np.ndarray
    unknown: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def truth(self, item: int) -> Answer:
        """What an operator who is never wrong says of an item, counted from 1."""
        return Answer.UNKNOWN if self.unknown[item - 1] else Answer.KNOWN

    def files(self, start: int, stop: int) -> list[tuple[str, bytes]]:
        """Items start + 1 to stop, where there are so many, as PNG files; names tell nothing."""
        return [
            (f"image {row + 1}.png", _png(self.pixels[row]))
            for row in range(start, min(stop, len(self)))
        ]

    def phase(self, item: int) -> str:
        """What happens at an item, counted from 1, in words."""
        ends = np.cumsum([phase.count for phase in PHASES[self.scenario]])
        place = int(np.searchsorted(ends, item))
        return PHASES[self.scenario][min(place, len(ends) - 1)].words


def plays_on(workspace: Workspace) -> bool:
    """Whether the truth of the recordings is true of a workspace: it knows the same classes."""
    return set(workspace.classes) == set(CLASSES) - UNKNOWN


def record(scenario: Scenario, seed: int = 0) -> Recording:
    """Draw the images of a scenario; the same seed draws the same ones, none of them twice."""
    rng = np.random.default_rng(seed)
    pixels, labels = read_fashion("t10k")
    names = np.array(CLASSES)[labels]
    known = rng.permutation(np.flatnonzero(~np.isin(names, list(UNKNOWN)))).tolist()
    others = {name: rng.permutation(np.flatnonzero(names == name)).tolist() for name in UNKNOWN}
    rows, faults = [], []
    for phase in PHASES[scenario]:
        shares = np.linspace(phase.start, phase.end, phase.count)
        for is_unknown in rng.random(phase.count) < shares:
            rows.append((others[phase.unknown] if is_unknown else known).pop())
            faults.append(phase.fault)
    taken = pixels[rows]
    taken[faults] = _faulty(taken[faults])
    return Recording(scenario, taken, names[rows], np.isin(names[rows], list(UNKNOWN)))


def _faulty(pixels: np.ndarray) -> np.ndarray:
    """(N, 28, 28) pictures of a camera that is out of focus and has half its light."""
    return np.round(_LIGHT * gaussian_filter(pixels.astype(float), (0, _BLUR, _BLUR))).astype(
        np.uint8
    )


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
