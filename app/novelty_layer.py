"""The layer at which a workspace looks for new classes, and how it was chosen."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from app.inbox_contents import Vectors
from models.activations import Activations
from ood.layer_choice import Layer, LayerChoice

NOVELTY_LAYER_FILE = "novelty_layer.safetensors"


@dataclass(frozen=True)
class NoveltyLayer:
    """The layer that was chosen of L, see `LayerChoice.best`.

    Attributes:
        stage: number of the stage; -1 for the penultimate features.
        means: (K,) of the training images.
        deviations: (K,) of the training images.
        scores: (L,) mean F1 over the known classes that were hidden in turn, of the stages in
            order and of the penultimate features last; none where nothing was tried.
    """

    stage: int
    means: np.ndarray
    deviations: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, choice: LayerChoice) -> Self:
        """The chosen one of those tried."""
        layer = choice.layers[choice.best]
        tried = choice.scores[:, ~np.isnan(choice.scores).all(axis=0)]
        return cls(layer.stage, layer.means, layer.deviations, np.nanmean(tried, axis=1))

    @classmethod
    def penultimate(cls, activations: Activations) -> Self:
        """Of a workspace that was prepared before layers were chosen."""
        layer = Layer.penultimate(activations)
        return cls(layer.stage, layer.means, layer.deviations, np.empty(0))

    @property
    def layer(self) -> Layer:
        """How features are read there."""
        return Layer(self.stage, self.means, self.deviations)

    def kept(self, activations: Activations) -> tuple[np.ndarray, ...]:
        """What the inbox has to keep of N images beside their penultimate features: (N, K)."""
        return () if self.stage < 0 else (np.asarray(activations.means[self.stage], np.float32),)

    def features(self, vectors: Vectors) -> np.ndarray:
        """(N, K) unit features of N images in the inbox."""
        return self.layer.read(vectors.features if self.stage < 0 else vectors.means[0])
