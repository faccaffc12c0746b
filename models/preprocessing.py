"""How an image becomes the classifier's input."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the centre, normalise.

    Attributes:
        image_size: side S of the square that the network sees, in pixels.
        mean: per channel, of values in [0, 1]; one number means a grayscale network.
        std: per channel, as many as `mean`.
        resize: what the shorter side is resized to before the crop; S when 0.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int = 0

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} and std {len(self.std)} numbers; "
                "give both one (grayscale) or three (RGB)."
            )
        if min(self.std) <= 0 or self.image_size < 1:
            raise ValueError("std and image_size must be positive.")
        if self.resize and self.resize < self.image_size:
            raise ValueError(f"resize {self.resize} is smaller than image_size {self.image_size}.")

    @property
    def channels(self) -> int:
        """1 for a grayscale network, 3 for RGB."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, S, S) of one input."""
        return self.channels, self.image_size, self.image_size

    def pixels(self, image: Image.Image) -> np.ndarray:
        """The square that the network sees: (channels, S, S), uint8.

        Crop and resize are one step, so that a very long image costs no more than a square one.
        """
        shorter = min(image.size)
        side = shorter * self.image_size / (self.resize or self.image_size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        square = image.resize(
            (self.image_size, self.image_size),
            Image.Resampling.BILINEAR,
            box=(left, top, left + side, top + side),
        )
        array = np.asarray(square.convert("L" if self.channels == 1 else "RGB"))
        return array.reshape(self.image_size, self.image_size, self.channels).transpose(2, 0, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(N, channels, S, S) uint8 to float32 with the training set's mean and deviation."""
        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return (pixels.float() / 255 - mean) / std
