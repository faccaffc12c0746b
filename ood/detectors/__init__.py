"""Out-of-distribution detectors, split by what they consume.

Every score has one polarity: larger means more outlying.
"""

from ood.detectors.base import Detector, DetectorInfo, Paper
from ood.detectors.features import KNN, ViM
from ood.detectors.gaussian import LayeredMahalanobis, Mahalanobis
from ood.detectors.logits import GEN, MSP, Energy
from ood.detectors.store import load_detector, save_detector

DETECTORS: dict[str, type[Detector]] = {
    detector.info.name: detector
    for detector in (LayeredMahalanobis, Mahalanobis, KNN, ViM, Energy, GEN, MSP)
}

__all__ = [
    "DETECTORS",
    "GEN",
    "KNN",
    "MSP",
    "Detector",
    "DetectorInfo",
    "Energy",
    "LayeredMahalanobis",
    "Mahalanobis",
    "Paper",
    "ViM",
    "load_detector",
    "save_detector",
]
