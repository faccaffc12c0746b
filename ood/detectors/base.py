"""What a detector is."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np

from models.activations import Activations
from models.bank import Bank, TuningSet

Representation = Literal["logits", "features", "means", "maxima", "neighbours", "gradients"]
Kind = Literal["layers", "distance", "logits", "shaped", "joined", "gradients"]


@dataclass(frozen=True)
class Paper:
    """Where a detector comes from."""

    authors: str
    venue: str
    year: int
    title: str
    url: str


@dataclass(frozen=True)
class DetectorInfo:
    """What a detector says of itself.

    Attributes:
        name: key in files and records.
        title: name for people.
        question: what it asks of an image, in plain words.
        consumes: the parts of `Activations` it reads.
        kind: how it goes about it: looks into several layers; measures how far the features are
            from those of training images; asks how much speaks for a class, in the logits as they
            are, in those of reshaped features, or after a nudge along the gradient; or joins
            features and logits.
        paper: its source.
    """

    name: str
    title: str
    question: str
    consumes: frozenset[Representation]
    kind: Kind
    paper: Paper


@runtime_checkable
class Detector(Protocol):
    """A frozen dataclass of arrays and numbers."""

    info: ClassVar[DetectorInfo]

    @classmethod
    def fit(cls, bank: Bank, tuning: TuningSet) -> Self:
        """Learn what training images look like; what needs images unseen in training, tunes."""
        ...

    def score(self, activations: Activations) -> np.ndarray:
        """(N,) float32; larger means more outlying."""
        ...
