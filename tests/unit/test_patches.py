"""The patch map: against brute force, against uniformity, and on a foreign square."""

from dataclasses import fields
from weakref import finalize

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import nn

from models.classifier import Classifier
from models.preprocessing import Preprocessing
from ood.patches import PATCHES_PER_IMAGE, PatchBank, PatchMap

HEIGHT, WIDTH, DEPTH = 4, 5, 6


def cells(n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, HEIGHT, WIDTH, DEPTH)).astype(np.float32)


@pytest.fixture(scope="module")
def training():
    return cells(60, 0)


@pytest.fixture(scope="module")
def bank(training):
    return PatchBank.fit([training], np.arange(60) * 2, [cells(400, 1)])


def test_it_remembers_eight_different_patches_of_each_image(bank, training):
    assert len(bank.features) == len(training) * PATCHES_PER_IMAGE
    flat = training.reshape(len(training), -1, DEPTH)
    remembered = flat[bank.images // 2, bank.cells]
    np.testing.assert_array_equal(bank.features, remembered.astype(np.float16))
    pairs = np.stack([bank.images, bank.cells], axis=1)
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert bank.grid.tolist() == [HEIGHT, WIDTH]


def test_batches_are_as_good_as_all_at_once_and_are_not_kept(bank, training):
    alive = 0

    def batches(images, size):
        nonlocal alive
        for start in range(0, len(images), size):
            batch = images[start : start + size].copy()
            alive += 1
            finalize(batch, released)
            yield batch
            del batch
            assert alive <= 1  # whoever asked has one, and it is this one

    def released():
        nonlocal alive
        alive -= 1

    again = PatchBank.fit(batches(training, 7), np.arange(60) * 2, batches(cells(400, 1), 90))
    for part in fields(bank):
        found, expected = getattr(again, part.name), getattr(bank, part.name)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_small_grids_give_all_their_cells():
    few = PatchBank.fit([cells(3, 0)[:, :2, :2]], np.arange(3), [cells(3, 1)[:, :2, :2]])
    np.testing.assert_array_equal(np.sort(few.cells.reshape(3, 4), axis=1), [np.arange(4)] * 3)


def test_nearest_is_that_of_brute_force_in_float64(bank):
    asked = cells(2, 5)
    distances, nearest = bank.nearest(asked)
    differences = np.float64(asked)[..., None, :] - np.float64(bank.features)
    brute = np.linalg.norm(differences, axis=-1)
    np.testing.assert_array_equal(nearest, brute.argmin(axis=-1))
    np.testing.assert_allclose(distances, brute.min(axis=-1), atol=1e-4)


def test_p_values_of_new_normal_cells_are_uniform(bank):
    p_values = np.concatenate([bank.locate(image).p_values.ravel() for image in cells(200, 9)])
    assert kstest(p_values, "uniform").statistic < 0.03
    for level in (0.05, 0.01):
        assert (p_values <= level).mean() == pytest.approx(level, abs=0.6 * level)


def test_far_cells_have_ever_smaller_p_values(bank):
    image = cells(1, 3)[0]
    image[1, 3] *= 10
    image[2, 0] *= 30
    found = bank.locate(image)
    assert found.oddest == (2, 0)
    assert found.p_values[2, 0] < found.p_values[1, 3] < 1e-3


def test_a_training_patch_finds_itself(bank, training):
    found = bank.locate(training[7])
    own = np.flatnonzero(bank.images == 14)
    np.testing.assert_array_equal(found.nearest.reshape(-1)[bank.cells[own]], own)


def test_the_oddest_cell_is_row_and_column():
    p_values = np.ones((2, 3))
    p_values[1, 2] = 0.5
    assert PatchMap(p_values, np.zeros((2, 3), int)).oddest == (1, 2)


def test_a_foreign_square_lights_up_where_it_was_pasted():
    """A network that has learned nothing still tells stripes from blotches."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4),
        nn.Conv2d(16, 16, 3, 2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    classifier = Classifier(network, Preprocessing(32, (0.5,), (0.5,)), "abc", torch.device("cpu"))

    def stripes(n, seed):
        rng = np.random.default_rng(seed)
        phase = rng.uniform(0, 6, (n, 1, 1, 1))
        waves = 128 + 60 * np.sin(np.arange(32) * 0.8 + phase) * np.ones((n, 1, 32, 32))
        return (waves + rng.normal(0, 5, waves.shape)).clip(0, 255).astype(np.uint8)

    learned, held_out = (classifier.observe_patches(stripes(100, seed)) for seed in (0, 1))
    bank = PatchBank.fit([learned], np.arange(100), [held_out])
    image = stripes(1, 2)
    image[0, 0, 20:28, 4:12] = np.random.default_rng(0).choice([0, 255], (8, 8))
    found = bank.locate(classifier.observe_patches(image)[0])
    rows, columns = found.p_values.shape
    row, column = found.oddest
    assert 20 <= (row + 0.5) * 32 / rows <= 28 and 4 <= (column + 0.5) * 32 / columns <= 12
    assert found.p_values[row, column] < 1e-3
    assert np.median(found.p_values[:, columns // 2 + 2 :]) > 0.05
