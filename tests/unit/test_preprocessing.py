import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from models.preprocessing import Preprocessing

RGB = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.parametrize("size", [(640, 480), (300, 901), (256, 256), (40, 90)])
def test_it_does_what_torchvision_evaluates_its_weights_with(size):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    image = small.resize(size, Image.Resampling.BICUBIC)
    ours = Preprocessing(224, resize=256, **RGB)
    tensor = ours.normalise(torch.tensor(ours.pixels(image))[None])[0]
    theirs = v2.Compose(
        [v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
         v2.Normalize(**RGB)]
    )(image)  # fmt: skip
    # They round the resized side to whole pixels, a shift of up to half a pixel.
    assert (tensor - theirs).abs().mean() < 0.03
    uncropped = Preprocessing(224, **RGB).pixels(image)
    assert (ours.normalise(torch.tensor(uncropped)[None])[0] - theirs).abs().mean() > 0.1


def test_at_its_own_size_nothing_is_resampled():
    array = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    gray = Preprocessing(28, (0.5,), (0.25,))
    pixels = gray.pixels(Image.fromarray(array).convert("RGB"))
    np.testing.assert_array_equal(pixels[0], array)
    expected = (array / 255 - 0.5) / 0.25
    np.testing.assert_allclose(
        gray.normalise(torch.tensor(pixels)[None])[0, 0], expected, atol=1e-6
    )


def test_a_very_long_image_costs_no_more_than_a_square_one():
    start = time.perf_counter()
    pixels = Preprocessing(224, **RGB).pixels(Image.new("RGB", (39_000_000 // 2, 2)))
    assert pixels.shape == (3, 224, 224)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (0.5,), "std": (0.5, 0.5)},
        {"mean": (0.5, 0.5), "std": (0.5, 0.5)},
        {"mean": (0.5,), "std": (0.0,)},
        {"mean": (0.5,), "std": (0.5,), "resize": 20},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        Preprocessing(28, **wrong)
