"""Out-of-distribution detectors, split by what they consume.

Every score has one polarity: larger means more outlying.
"""

from models.bank import Bank
from ood.detectors.base import Detector, DetectorInfo, Paper
from ood.detectors.decomposed import GeneralizedODIN
from ood.detectors.gaussian import (
    Mahalanobis,
    MahalanobisPlusPlus,
    RelativeMahalanobis,
    RelativeMahalanobisPlusPlus,
)
from ood.detectors.head import FDBD, NCI, SHE
from ood.detectors.kernel import CoRP
from ood.detectors.layers import LayeredMahalanobis, RelativeMaxima
from ood.detectors.logits import GEN, MSP, Energy, Entropy, MaxLogit
from ood.detectors.masf import MaSF
from ood.detectors.neighbours import KNN, NNGuide
from ood.detectors.shaping import ASH, DICE, SCALE, ReAct
from ood.detectors.subspace import Residual, ViM
from ood.detectors.tuned import KLMatching, TemperatureMSP

DETECTORS: dict[str, type[Detector]] = {
    detector.info.name: detector
    for detector in (
        LayeredMahalanobis,
        RelativeMaxima,
        MaSF,
        MahalanobisPlusPlus,
        RelativeMahalanobisPlusPlus,
        Mahalanobis,
        RelativeMahalanobis,
        KNN,
        NNGuide,
        ViM,
        Residual,
        CoRP,
        FDBD,
        NCI,
        SHE,
        Energy,
        MaxLogit,
        MSP,
        TemperatureMSP,
        Entropy,
        GEN,
        KLMatching,
        ReAct,
        ASH,
        SCALE,
        DICE,
    )
}

SPECIAL: dict[str, type[Detector]] = {GeneralizedODIN.info.name: GeneralizedODIN}


def detectors_for(bank: Bank) -> dict[str, type[Detector]]:
    """Those that the classifier allows: all of `DETECTORS`, and more where its head is made so."""
    return DETECTORS | SPECIAL if bank.head.divided else DETECTORS


__all__ = [
    "ASH",
    "DETECTORS",
    "DICE",
    "FDBD",
    "GEN",
    "KNN",
    "MSP",
    "NCI",
    "SCALE",
    "SHE",
    "SPECIAL",
    "CoRP",
    "Detector",
    "DetectorInfo",
    "Energy",
    "Entropy",
    "GeneralizedODIN",
    "KLMatching",
    "LayeredMahalanobis",
    "MaSF",
    "Mahalanobis",
    "MahalanobisPlusPlus",
    "MaxLogit",
    "NNGuide",
    "Paper",
    "ReAct",
    "RelativeMahalanobis",
    "RelativeMahalanobisPlusPlus",
    "RelativeMaxima",
    "Residual",
    "TemperatureMSP",
    "ViM",
    "detectors_for",
]
