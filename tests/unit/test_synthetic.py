import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ood import synthetic
from ood.synthetic import CORRUPTIONS, SEVERITIES


@pytest.fixture(params=[(1, 28), (3, 33)], ids=["gray 28", "RGB 33"])
def images(request):
    channels, side = request.param
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=(12, channels, side, side)), (0, 0, 1.5, 1.5))
    return np.clip(128 + 300 * smooth, 0, 255).astype(np.uint8)


LABELS = np.arange(12) % 3


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_severity_takes_images_further_away(images, kind):
    distances = []
    for severity in SEVERITIES:
        changed = CORRUPTIONS[kind](images, severity)
        assert changed.shape == images.shape and changed.dtype == np.uint8
        distances.append(np.abs(changed.astype(int) - images).mean())
    assert (np.diff(distances) > 0).all()


def test_everything_made_is_the_same_again(images):
    for make in (
        lambda: synthetic.blends(images, LABELS),
        lambda: synthetic.shuffled_patches(images),
        lambda: synthetic.textures(5, images.shape[1:]),
        lambda: CORRUPTIONS["noise"](images, 3),
    ):
        np.testing.assert_array_equal(make(), make())


def test_mixes_are_of_two_classes(images):
    flat = np.repeat(LABELS * 100, images[0].size).reshape(images.shape).astype(np.uint8)
    halves = synthetic.halves(flat, LABELS)
    assert (halves[:, 0, 0, 0] == flat[:, 0, 0, 0]).all()
    assert (halves[:, 0, -1, 0] != flat[:, 0, 0, 0]).all()
    assert (synthetic.blends(flat, LABELS)[:, 0, 0, 0] != flat[:, 0, 0, 0]).all()
    one_class = synthetic.blends(images, np.zeros(12, int))
    assert one_class.shape == images.shape


def test_shuffled_patches_keep_every_pixel(images):
    shuffled = synthetic.shuffled_patches(images)
    for before, after in zip(images, shuffled, strict=True):
        np.testing.assert_array_equal(np.sort(before, axis=None), np.sort(after, axis=None))
    assert (shuffled != images).mean() > 0.5


def test_sets_from_nothing_have_the_networks_shape():
    for shape in ((1, 28, 28), (3, 32, 32)):
        for made in (
            synthetic.noise(7, shape), synthetic.textures(7, shape), synthetic.digits(7, shape)
        ):  # fmt: skip
            assert made.shape == (7, *shape) and made.dtype == np.uint8 and made.std() > 20


@pytest.mark.parametrize("side", [1, 2, 3])
def test_tiny_images_do_no_harm(side):
    tiny = np.zeros((4, 3, side, side), np.uint8)
    assert synthetic.shuffled_patches(tiny).shape == tiny.shape
    for corrupt in CORRUPTIONS.values():
        assert corrupt(tiny, 5).shape == tiny.shape
