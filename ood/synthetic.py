"""Outliers made by rule, so that detectors can be compared where nobody has real ones.

Images are (N, channels, S, S) uint8 throughout; everything is seeded.
"""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from sklearn.datasets import load_digits

SEVERITIES = (1, 2, 3, 4, 5)
_GRID = 4
_NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)  # of the full range
_BLUR = (0.4, 0.6, 0.9, 1.3, 2.0)  # pixels of an image of 32
_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
_PIXELATE = (0.8, 0.6, 0.45, 0.3, 0.2)


def gaussian_noise(images: np.ndarray, severity: int) -> np.ndarray:
    """Additive noise, of 4% to 26% of the full range."""
    noise = np.random.default_rng(severity).normal(0, 255 * _NOISE[severity - 1], images.shape)
    return _to_uint8(images + noise)


def blur(images: np.ndarray, severity: int) -> np.ndarray:
    """Gaussian blur, of 0.4 to 2 pixels for a side of 32."""
    sigma = _BLUR[severity - 1] * images.shape[-1] / 32
    return _to_uint8(gaussian_filter(images.astype(np.float32), (0, 0, sigma, sigma)))


def low_contrast(images: np.ndarray, severity: int) -> np.ndarray:
    """Towards each image's mean, keeping 75% to 15% of the contrast."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return _to_uint8(mean + _CONTRAST[severity - 1] * (images - mean))


def pixelate(images: np.ndarray, severity: int) -> np.ndarray:
    """Down to 80% to 20% of the side and up again, pixels square."""
    side = images.shape[-1]
    small = max(1, round(side * _PIXELATE[severity - 1]))
    scale = (1, 1, small / side, small / side)
    reduced = zoom(images.astype(np.float32), scale, order=1, mode="nearest", grid_mode=True)
    nearest = np.arange(side) * reduced.shape[-1] // side
    return _to_uint8(reduced[:, :, nearest][:, :, :, nearest])


# Hendrycks and Dietterich (ICLR 2019) have fifteen; these four are one of each kind.
CORRUPTIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "noise": gaussian_noise,
    "blur": blur,
    "contrast": low_contrast,
    "pixelate": pixelate,
}


def blends(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each image laid half-transparent over one of another class (Zhang et al., ICLR 2018)."""
    other = images[_of_another_class(labels)]
    return ((images.astype(np.uint16) + other) // 2).astype(np.uint8)


def halves(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Upper half of one image, lower half of one of another class (Yun et al., ICCV 2019)."""
    mixed = images.copy()
    middle = images.shape[2] // 2
    mixed[:, :, middle:] = images[_of_another_class(labels)][:, :, middle:]
    return mixed


def shuffled_patches(images: np.ndarray) -> np.ndarray:
    """Each image cut into 4 x 4 patches, put together in random order."""
    rng = np.random.default_rng(0)
    n, channels, side = images.shape[:3]
    patch = max(1, side // _GRID)
    grid = side // patch
    cut = images[:, :, : grid * patch, : grid * patch]
    patches = cut.reshape(n, channels, grid, patch, grid, patch).transpose(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(n, grid * grid, channels, patch, patch)
    order = rng.permuted(np.tile(np.arange(grid * grid), (n, 1)), axis=1)
    patches = np.take_along_axis(patches, order[:, :, None, None, None], axis=1)
    patches = patches.reshape(n, grid, grid, channels, patch, patch).transpose(0, 3, 1, 4, 2, 5)
    shuffled = images.copy()
    shuffled[:, :, : grid * patch, : grid * patch] = patches.reshape(cut.shape)
    return shuffled


def noise(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """(count, *shape) of independent uniform pixels."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def textures(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """(count, *shape) of band-passed noise: grain, blotches and stripes without any object."""
    rng = np.random.default_rng(0)
    side = shape[-1]
    made = np.empty((count, *shape), np.uint8)
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    for image in made:
        frequency, angle = rng.uniform(1.5 / side, 0.3), rng.uniform(0, np.pi)
        along = fx * np.cos(angle) + fy * np.sin(angle)
        across = fy * np.cos(angle) - fx * np.sin(angle)
        stripes = rng.uniform(0, 1)
        radius = np.hypot(along, across * (1 + 3 * stripes))
        band = np.exp(-(((radius - frequency) / (0.3 * frequency)) ** 2))
        for channel in image:
            waves = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) * band).real
            low, high = np.quantile(waves, [0.02, 0.98])
            channel[:] = _to_uint8(255 * (waves - low) / max(high - low, 1e-9))
    return made


def digits(count: int, shape: tuple[int, int, int]) -> np.ndarray:
    """At most (count, *shape) of handwritten digits, light on dark.

    Of the 1,797 that come with scikit-learn, 8 x 8 (Alpaydin and Kaynak, UCI, 1998).
    """
    small = load_digits().images[:count]
    channels, side = shape[0], shape[-1]
    large = zoom(small, (1, side / small.shape[1], side / small.shape[2]), order=1)
    return np.repeat(_to_uint8(large * (255 / 16))[:, None], channels, axis=1)


def _of_another_class(labels: np.ndarray) -> np.ndarray:
    """For each row another row, of another class where there is one."""
    order = np.random.default_rng(0).permutation(len(labels))
    partner = np.roll(order, 1)[np.argsort(order)]
    for row in np.flatnonzero(labels[partner] == labels):
        different = order[labels[order] != labels[row]]
        if len(different):
            partner[row] = different[row % len(different)]
    return partner


def _to_uint8(images: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)
