import io

import numpy as np
import pytest
from PIL import Image

from explain.duplicates import near_duplicates
from models.activations import Activations, Head
from models.bank import Bank, CalibrationSet, normalise_rows
from models.fashion import read_fashion
from models.images import thumbnail_webp
from models.observed import Blobs, ObservedSet


def observed(features, pictures, ids=None, seed=0) -> ObservedSet:
    n = len(features)
    rng = np.random.default_rng(seed)
    return ObservedSet(
        activations=Activations(np.zeros((n, 2), np.float32), np.asarray(features, np.float32)),
        labels=np.zeros(n, np.int32),
        ids=rng.integers(0, 256, (n, 32), np.uint8) if ids is None else ids,
        names=Blobs.pack([b""] * n),
        thumbnails=Blobs.pack([thumbnail_webp(Image.fromarray(p), 64) for p in pictures]),
    )


def found_among(training: ObservedSet, held_out: ObservedSet):
    head = Head(np.zeros((2, training.activations.features.shape[1]), np.float32), np.zeros(2))
    bank = Bank(training, head)
    neighbours = bank.locate_own(np.arange(len(training))).neighbours
    return near_duplicates(training, neighbours, CalibrationSet(held_out, bank))


def recompressed(picture, quality):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.fixture(scope="module")
def clothes():
    """300 training images with copies of some, 20 held out with a copy of one."""
    pixels = np.repeat(read_fashion("t10k")[0][:320, :, :, None], 3, axis=3)
    rng = np.random.default_rng(0)
    pixels[10] = pixels[4]  # the very picture
    pixels[11] = pixels[4]
    pixels[20] = recompressed(pixels[5], 80)
    pixels[21] = np.clip(pixels[6] * 1.15, 0, 255)
    pixels[22] = np.clip(pixels[7] + rng.normal(0, 4, pixels[7].shape), 0, 255)
    pixels[310] = recompressed(pixels[40], 80)
    features = normalise_rows(pixels[:, ::3, ::3, 0].reshape(320, -1))
    ids = rng.integers(0, 256, (320, 32), np.uint8)
    ids[10] = ids[11] = ids[4]
    training = observed(features[:300], pixels[:300], ids[:300])
    return training, observed(features[300:], pixels[300:], ids[300:])


def test_copies_are_found_and_nothing_else(clothes):
    found = found_among(*clothes)
    np.testing.assert_array_equal(found.leaks, [[40, 10]])
    assert {(4, 10), (10, 11), (5, 20), (6, 21), (7, 22)} <= set(map(tuple, found.pairs.tolist()))
    assert len(found.pairs) - (found.pairs == (4, 11)).all(axis=1).sum() == 5
    assert found.exact.sum() == 2 and (found.unlikeness[found.exact] == 0).all()
    assert (found.unlikeness[found.pairs[:, 1] > 11] > 0).all()


def test_groups_join_chains_of_copies(clothes):
    groups = found_among(*clothes).groups
    assert groups[4] == groups[10] == groups[11] == 0
    assert [groups[row] for row in (5, 20, 6, 21, 7, 22)] == [1, 1, 2, 2, 3, 3]
    assert (groups >= 0).sum() == 9


def test_alike_to_the_model_is_not_a_copy(clothes):
    """All features at one place: every pair is a candidate, and pictures decide."""
    training, held_out = clothes
    same = np.ones((300, 3)) + np.random.default_rng(0).normal(0, 1e-6, (300, 3))
    images = ObservedSet(
        Activations(training.activations.logits, same.astype(np.float32)), training.labels,
        training.ids, training.names, training.thumbnails,
    )  # fmt: skip
    asked = ObservedSet(
        Activations(held_out.activations.logits, np.ones((20, 3), np.float32)), held_out.labels,
        held_out.ids, held_out.names, held_out.thumbnails,
    )  # fmt: skip
    found = found_among(images, asked)
    copies = {(4, 10), (4, 11), (10, 11), (5, 20), (6, 21), (7, 22)}
    assert set(map(tuple, found.pairs.tolist())) <= copies


def test_pictures_of_one_shade_are_copies_only_when_their_pixels_are_equal():
    flat = [np.full((8, 8, 3), shade, np.uint8) for shade in (10, 10, 200, 90)]
    ids = np.arange(4 * 32, dtype=np.uint8).reshape(4, 32)
    ids[1] = ids[0]
    found = found_among(
        observed(np.ones((4, 3)), flat, ids), observed(np.ones((1, 3)), flat[:1], seed=1)
    )
    np.testing.assert_array_equal(found.pairs, [[0, 1]])
    assert not len(found.leaks)


def test_with_one_training_image_nothing_is_usual():
    picture = [np.arange(192, dtype=np.uint8).reshape(8, 8, 3)]
    held_out = observed(np.ones((1, 3)), picture, seed=1)
    found = found_among(observed(np.ones((1, 3)), picture), held_out)
    assert len(found.pairs) == 0
    assert len(found.leaks) == 0
    np.testing.assert_array_equal(found.groups, [-1])


def test_sixty_copies_of_one_picture_are_one_group():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (120, 8, 8, 3), np.uint8)
    pictures[:60] = pictures[0]
    features = rng.normal(size=(120, 16))
    features[:60] = features[0]
    ids = rng.integers(0, 256, (120, 32), np.uint8)
    ids[:60] = ids[0]
    held_out = observed(features[:1] + 9, pictures[99:100], seed=1)
    found = found_among(observed(features, pictures, ids), held_out)
    assert (found.groups[:60] == 0).all() and (found.groups[60:] == -1).all()
