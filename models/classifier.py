"""A classifier that is run once an image, and remembers what the pass left behind."""

from collections.abc import Sequence
from threading import RLock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, normalize

from models.activations import Activations, Head, join_activations
from models.anatomy import HeadNotFound, Stage, find_anatomy
from models.preprocessing import Preprocessing

BATCH_SIZE = 64
LARGEST_GRID = 16


class NoStages(ValueError):
    """The network has no stage whose output is a map."""


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
        self._anatomy = anatomy = find_anatomy(self.network, self._example())
        layer = anatomy.head
        self.head = Head(
            weight=layer.weight.float().cpu().numpy(),
            bias=(
                torch.zeros(layer.out_features) if layer.bias is None else layer.bias.float().cpu()
            ).numpy(),
            divided=anatomy.divided,
        )
        if layer.out_features != len(self.classes):
            raise HeadNotFound(
                f"The network has {layer.out_features} outputs but there are "
                f"{len(self.classes)} classes."
            )
        self._features = torch.empty(0)
        self._channels: dict[Stage, tuple[Tensor, Tensor]] = {}
        layer.register_forward_pre_hook(self._keep_features)
        for module in dict.fromkeys(stage.module for stage in anatomy.stages):
            module.register_forward_hook(self._keep_channels)

    def observe(self, pixels: np.ndarray) -> Activations:
        """One forward pass.

        Args:
            pixels: (N, channels, S, S) uint8, as `Preprocessing.pixels` makes them; N >= 1.

        Raises:
            NonFiniteOutput: when a logit or feature is NaN or infinite; says of which rows.
        """
        parts = []
        stages = self._anatomy.stages
        with self.lock, torch.inference_mode():
            for start in range(0, len(pixels), BATCH_SIZE):
                logits = self.network(self.inputs(pixels[start : start + BATCH_SIZE]))
                parts.append(
                    Activations(
                        logits=_array(logits),
                        features=_array(self._features),
                        means=tuple(
                            _array(self._channels[stage][0])
                            for stage in stages
                            if stage != self._anatomy.pooled
                        ),
                        maxima=tuple(_array(self._channels[stage][1]) for stage in stages),
                    )
                )
            self._channels.clear()
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

    def observe_patches(self, pixels: np.ndarray) -> np.ndarray:
        """Another pass, which keeps where in the image things are.

        The output of the last stage but one, each cell averaged with its eight neighbours
        (PatchCore: Roth et al., CVPR 2022, section 3.1), over at most 16 x 16 cells, each of
        length one: of foreign squares pasted into the demo's images that finds 7 in 10, without it
        4 in 10.

        Args:
            pixels: (N, channels, S, S) uint8; N >= 1.

        Returns:
            (N, h, w, K) float32.

        Raises:
            NoStages: when no module of the network answers with a map.
        """
        if not self._anatomy.stages:
            raise NoStages("The network has no layer that keeps where in the image things are.")
        stage = self._anatomy.stages[-2:][0]
        last: list[Tensor] = []  # of a module that is called twice

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            if output.shape[1:] == stage.shape:
                last[:] = [output]

        parts = []
        with self.lock, torch.inference_mode():
            handle = stage.module.register_forward_hook(keep)
            try:
                for start in range(0, len(pixels), BATCH_SIZE):
                    self.network(self.inputs(pixels[start : start + BATCH_SIZE]))
                    parts.append(_array(_cells(last[0]).permute(0, 2, 3, 1)))
            finally:
                handle.remove()
        return np.concatenate(parts)

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
        self._features = inputs[0].detach()

    def _keep_channels(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        stage, output = Stage(module, output.shape[1:]), output.detach()
        if stage in self._anatomy.stages:  # a module that is called twice has other answers too
            self._channels[stage] = output.mean(dim=(2, 3)), output.amax(dim=(2, 3))


def _cells(output: Tensor) -> Tensor:
    """(N, K, H, W) to the same averaged over 3 x 3, at most 16 x 16 cells, each of length one."""
    pooled = avg_pool2d(output, 3, stride=1, padding=1, count_include_pad=False)
    height, width = (min(side, LARGEST_GRID) for side in output.shape[2:])
    return normalize(adaptive_avg_pool2d(pooled, (height, width)))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
