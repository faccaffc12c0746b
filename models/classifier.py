"""A classifier that is run once an image, and remembers what the pass left behind."""

from collections.abc import Sequence
from threading import RLock

import numpy as np
import torch
from torch import Tensor, nn

from models.activations import Activations, Head, join_activations
from models.anatomy import HeadNotFound, channel_means, find_anatomy
from models.preprocessing import Preprocessing

BATCH_SIZE = 64


class NonFiniteOutput(ValueError):
    """The network answered NaN or infinity."""


class Classifier:
    """A frozen network, its preprocessing and the names of its classes.

    Attributes:
        network: on `device`, in eval mode, without gradients to its weights.
        preprocessing: from image to input.
        classes: C names, in the order of the logits.
        device: CUDA where there is one, else the CPU.
        head: copy of the last linear layer.
        lock: held by whoever runs the network; hooks are not thread-safe.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        classes: Sequence[str],
        device: torch.device | None = None,
    ) -> None:
        if device is None:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cuda":
            # TF32 convolutions round to 10 bits: enough to move a verdict between machines.
            torch.backends.cudnn.allow_tf32 = False
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)
        self.preprocessing = preprocessing
        self.classes = tuple(classes)
        self.lock = RLock()
        layer, stages = find_anatomy(self.network, self._example())
        self.head = Head(
            weight=layer.weight.float().cpu().numpy(),
            bias=(
                torch.zeros(layer.out_features) if layer.bias is None else layer.bias.float().cpu()
            ).numpy(),
        )
        if layer.out_features != len(self.classes):
            raise HeadNotFound(
                f"The network has {layer.out_features} outputs but there are "
                f"{len(self.classes)} classes."
            )
        self._kept: dict[nn.Module, Tensor] = {}
        self._layer, self._stages = layer, stages
        layer.register_forward_pre_hook(self._keep_features)
        for stage in stages:
            stage.register_forward_hook(self._keep_channels)

    def observe(self, pixels: np.ndarray) -> Activations:
        """One forward pass.

        Args:
            pixels: (N, channels, S, S) uint8, as `Preprocessing.pixels` makes them; N >= 1.

        Raises:
            NonFiniteOutput: when a logit or feature is NaN or infinite; says of which rows.
        """
        parts = []
        with self.lock, torch.inference_mode():
            for start in range(0, len(pixels), BATCH_SIZE):
                logits = self.network(self.inputs(pixels[start : start + BATCH_SIZE]))
                parts.append(
                    Activations(
                        logits=_array(logits),
                        features=_array(self._kept[self._layer]),
                        channels=tuple(_array(self._kept[stage]) for stage in self._stages),
                    )
                )
            self._kept.clear()
        activations = join_activations(parts)
        finite = np.isfinite(activations.logits).all(axis=1)
        finite &= np.isfinite(activations.features).all(axis=1)
        if not finite.all():
            rows = np.flatnonzero(~finite)
            raise NonFiniteOutput(
                f"The network answered NaN or infinity for {len(rows)} of {len(pixels)} images "
                f"(first: row {rows[0]}). Check the weights, and the mean and std."
            )
        return activations

    def inputs(self, pixels: np.ndarray) -> Tensor:
        """(N, channels, S, S) uint8 to what the network takes, on its device."""
        tensor = torch.tensor(pixels, device=self.device)
        return self.preprocessing.normalise(tensor)

    def _example(self) -> Tensor:
        size = self.preprocessing.image_size
        noise = np.random.default_rng(0).integers(
            0, 256, (2, self.preprocessing.channels, size, size), np.uint8
        )
        return self.inputs(noise)

    def _keep_features(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._kept[layer] = inputs[0].detach()

    def _keep_channels(self, stage: nn.Module, inputs: object, output: Tensor) -> None:
        self._kept[stage] = channel_means(output.detach())


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
