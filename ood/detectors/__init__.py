"""Out-of-distribution detectors, split by what they consume.

Every score has one polarity: larger means more outlying.
"""

from models.bank import Bank
from models.classifier import Classifier
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
# These take the logits for W z + b, or make such logits of features that they have reshaped.
_LINEAR = {kind.info.name for kind in (ViM, FDBD, NCI, ReAct, ASH, SCALE, DICE)}


def detectors_for(model: Bank | Classifier) -> dict[str, type[Detector]]:
    """Those that the classifier's head allows.

    All of `DETECTORS` where the logits are W z + b. Where they are divided by a number of the
    image's own, those that count on W z + b are left out, and `SPECIAL` ones come in.
    """
    if not model.head.divided:
        return DETECTORS
    return {name: kind for name, kind in DETECTORS.items() if name not in _LINEAR} | SPECIAL


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
