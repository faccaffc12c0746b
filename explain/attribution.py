"""Where the classifier looked."""

import numpy as np
import torch
from captum.attr import IntegratedGradients

from models.classifier import Classifier

STEPS = 64
_BATCH = 32


def integrated_gradients(classifier: Classifier, pixels: np.ndarray, target: int) -> np.ndarray:
    """How much each pixel raised the logit of `target`, from a black image to this one.

    Integrated Gradients (Sundararajan, Taly and Yan, ICML 2017) by captum, 64 steps of
    Gauss-Legendre. It costs 64 passes forward and back, with the classifier's lock held.

    Args:
        classifier: run once a step.
        pixels: (channels, S, S) uint8.
        target: index of the class.

    Returns:
        (S, S) float32, summed over channels; positive where the pixel spoke for the class.
    """
    with classifier.lock:
        inputs = classifier.inputs(pixels[None]).requires_grad_()
        black = classifier.inputs(np.zeros_like(pixels)[None])
        attributions = IntegratedGradients(classifier.network).attribute(
            inputs, black, target=target, n_steps=STEPS, internal_batch_size=_BATCH
        )
    summed: torch.Tensor = attributions.detach().sum(dim=(0, 1))
    return summed.float().cpu().numpy()
