"""A detector that asks the network for gradients, and so for more than the one pass."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch

from models.classifier import BATCH_SIZE, Classifier
from ood.detectors.base import DetectorInfo, Paper

STEPS = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.04)


@dataclass(frozen=True)
class ODIN:
    """-max_c p_c(x'; T) with x' = x + e sign(grad log max_c p_c(x; T)), p the softmax of f / T.

    A small step that makes the network surer helps known images more than unknown ones. It costs
    a forward and a backward pass and another forward pass, about five times an inspection.

    Attributes:
        temperature: T, 1000 as in the paper.
        step: e, in units of the [0, 1] range of pixels.
    """

    temperature: float
    step: float
    info: ClassVar = DetectorInfo(
        name="odin",
        title="ODIN",
        question="Does a nudge towards its answer fail to make the network surer?",
        consumes=frozenset({"gradients"}),
        kind="gradients",
        paper=Paper(
            "Liang, Li and Srikant", "ICLR", 2018,
            "Enhancing The Reliability of Out-of-distribution Image Detection in Neural Networks",
            "https://arxiv.org/abs/1706.02690",
        ),
    )  # fmt: skip

    @classmethod
    def fit(cls, classifier: Classifier, pixels: np.ndarray) -> Self:
        """Choose the step on known images alone: the one that makes them surest on average.

        Hsu, Shen, Jin and Kira (CVPR 2020, section 3.2); ODIN's own choice needs outliers.

        Args:
            classifier: the network.
            pixels: (N, channels, S, S) uint8 of held-out images.
        """
        candidates = [cls(temperature=1000.0, step=step) for step in STEPS]
        return min(candidates, key=lambda odin: float(odin.score(classifier, pixels).mean()))

    def score(self, classifier: Classifier, pixels: np.ndarray) -> np.ndarray:
        """(N, channels, S, S) uint8 to (N,) float32 in [-1, -1/C]; larger is more outlying."""
        std = torch.tensor(classifier.preprocessing.std, device=classifier.device).view(1, -1, 1, 1)
        parts = []
        with classifier.lock:
            for start in range(0, len(pixels), BATCH_SIZE):
                inputs = classifier.inputs(pixels[start : start + BATCH_SIZE])
                with torch.enable_grad():
                    inputs.requires_grad_()
                    p = torch.softmax(classifier.network(inputs) / self.temperature, dim=1)
                    (gradient,) = torch.autograd.grad(p.amax(dim=1).log().sum(), inputs)
                with torch.inference_mode():
                    nudged = inputs.detach() + self.step * gradient.sign() / std
                    again = torch.softmax(classifier.network(nudged) / self.temperature, dim=1)
                    parts.append(-again.amax(dim=1).cpu().numpy())
        return np.concatenate(parts).astype(np.float32)
