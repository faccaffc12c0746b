"""Detectors that see all stages of the network at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from models.activations import Activations
from models.bank import normalise_rows
from ood.detectors.base import DetectorInfo, Paper
from ood.detectors.gaussian import Mahalanobis, RelativeMahalanobis

LONGEST_LAYER = 512


def _all_layers(activations: Activations) -> np.ndarray:
    return _end_to_end((*activations.means, *activations.maxima, activations.features))


def _maxima(activations: Activations) -> np.ndarray:
    return _end_to_end(activations.maxima or (activations.features,))


@dataclass(frozen=True)
class LayeredMahalanobis(Mahalanobis):
    """min_c (n - m_c)' S^-1 (n - m_c), n the evidence of all stages end to end.

    That is the means and the maxima of the channels of every stage and the penultimate features,
    each of length one. The paper weighs layers by a regression on outliers (section 2.2); one
    covariance over all of them needs none, and knows which layers say the same. Layers of more
    than 512 numbers are projected to 512 random directions.
    """

    vectors = staticmethod(_all_layers)
    info: ClassVar = DetectorInfo(
        name="layers",
        title="Mahalanobis over layers",
        question="Is it far from every class, from its edges and textures up to its shape?",
        consumes=frozenset({"features", "means", "maxima"}),
        kind="layers",
        paper=Paper(
            "after Lee, Lee, Lee and Shin", "NeurIPS", 2018,
            "A Simple Unified Framework for Detecting Out-of-Distribution Samples and "
            "Adversarial Attacks",
            "https://arxiv.org/abs/1807.03888",
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class RelativeMaxima(RelativeMahalanobis):
    """min_c MD_c - MD_0, on the channel maxima of all stages, each stage of length one.

    A mean over space forgets a small part that is strange; a maximum keeps it. What all images
    have in common, MD_0, hides near outliers, and is taken off.
    """

    vectors = staticmethod(_maxima)
    info: ClassVar = DetectorInfo(
        name="maxima",
        title="Relative Mahalanobis, strongest answers",
        question="Are its strongest details no more those of any class than of images at large?",
        consumes=frozenset({"features", "maxima"}),
        kind="layers",
        paper=Paper(
            "after Ren, Fort, Liu, Roy, Padhy and Lakshminarayanan", "ICML workshop UDL", 2021,
            "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
            "https://arxiv.org/abs/2106.09022",
        ),
    )  # fmt: skip


def _end_to_end(layers: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([normalise_rows(_shorten(layer)) for layer in layers], axis=1)


def _shorten(layer: np.ndarray) -> np.ndarray:
    width = layer.shape[1]
    return layer if width <= LONGEST_LAYER else np.asarray(layer, np.float32) @ _directions(width)


@lru_cache
def _directions(width: int) -> np.ndarray:
    """(width, 512) orthonormal columns, random but always the same."""
    normal = np.random.default_rng(width).normal(size=(width, LONGEST_LAYER))
    directions: np.ndarray = np.linalg.qr(normal)[0]
    return directions.astype(np.float32)
