import numpy as np
import pytest

from models.activations import Activations, Head
from models.bank import (
    Bank,
    CalibrationSet,
    NotHeldOut,
    TuningSet,
    normalise_rows,
    split_held_out,
)
from models.observed import Blobs, ObservedSet, join_observed


def observed(features, labels=None, seed=0, ids=None) -> ObservedSet:
    n = len(features)
    rng = np.random.default_rng(seed)
    return ObservedSet(
        activations=Activations(
            logits=rng.normal(size=(n, 3)).astype(np.float32),
            features=np.asarray(features, np.float32),
            means=(rng.normal(size=(n, 4)).astype(np.float32),),
            maxima=(rng.normal(size=(n, 4)).astype(np.float32),),
        ),
        labels=np.zeros(n, np.int32) if labels is None else np.asarray(labels, np.int32),
        ids=rng.integers(0, 256, (n, 32), np.uint8) if ids is None else ids,
        names=Blobs.pack([f"{seed}/{row}.png".encode() for row in range(n)]),
        thumbnails=Blobs.pack([bytes(row % 7) for row in range(n)]),
    )


def bank_of(features, labels=None, **options) -> Bank:
    dim = np.shape(features)[1]
    head = Head(np.eye(3, dim, dtype=np.float32), np.zeros(3, np.float32))
    return Bank(observed(features, labels, **options), head)


def tuning_of(bank: Bank, n: int = 30) -> TuningSet:
    """Images like those of the Bank's features, not its own."""
    features = np.random.default_rng(99).normal(size=(n, len(bank.head.weight[0])))
    return TuningSet(observed(features, np.arange(n) % 3, seed=99), bank)


@pytest.mark.parametrize("queries", [1, 5, 300])
def test_neighbours_are_those_of_brute_force_in_float64(queries):
    rng = np.random.default_rng(0)
    features, asked = rng.normal(size=(2000, 32)), rng.normal(size=(queries, 32))
    found = bank_of(features).locate(observed(asked).activations).neighbours
    unit, ask = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (features, asked))
    distances = np.linalg.norm(ask[:, None] - unit[None], axis=2)
    np.testing.assert_array_equal(found.rows[:, :20], np.argsort(distances, axis=1)[:, :20])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :50], atol=1e-5)


def test_a_training_image_finds_itself_and_small_banks_give_all():
    features = np.random.default_rng(0).normal(size=(7, 5))
    located = bank_of(features).locate(observed(features[2:3]).activations)
    assert located.neighbours.rows.shape == (1, 7)
    assert located.neighbours.rows[0, 0] == 2
    assert located.neighbours.distances[0, 0] < 1e-3


def test_features_of_zeros_have_finite_neighbours():
    located = bank_of(np.eye(5)).locate(observed(np.zeros((1, 5))).activations)
    np.testing.assert_allclose(located.neighbours.distances, np.sqrt(2), atol=1e-6)
    assert np.isfinite(normalise_rows(np.zeros((2, 3)))).all()


def test_calibration_images_must_be_held_out():
    bank = bank_of(np.eye(5))
    held_out = CalibrationSet(observed(np.eye(5), seed=1), bank)
    assert held_out.activations.neighbours is not None
    ids = bank.images.ids.copy()
    ids[1:] ^= 1
    with pytest.raises(NotHeldOut, match=r"1 of 5 calibration images .*first: 2/0\.png"):
        CalibrationSet(observed(np.eye(5), seed=2, ids=ids), bank)
    with pytest.raises(NotHeldOut, match="no calibration images"):
        CalibrationSet(observed(np.empty((0, 5))), bank)


def test_what_is_saved_is_read_back(tmp_path):
    images = observed(np.random.default_rng(0).normal(size=(9, 5)))
    images.save(tmp_path / "set")
    read = ObservedSet.open(tmp_path / "set")
    np.testing.assert_array_equal(read.activations.features, images.activations.features)
    np.testing.assert_array_equal(read.activations.means[0], images.activations.means[0])
    np.testing.assert_array_equal(read.activations.maxima[0], images.activations.maxima[0])
    assert [read.name(row) for row in range(9)] == [images.name(row) for row in range(9)]
    assert [read.thumbnails[row] for row in range(9)] == [bytes(row % 7) for row in range(9)]
    assert read.sha256(3) == images.sha256(3)
    assert isinstance(read.activations.features, np.memmap)


def test_sets_are_joined_in_order_and_float16_gives_way_where_it_overflows(tmp_path):
    one, two = observed(np.full((2, 3), 1.5)), observed(np.full((3, 3), 7e4), seed=1)
    join_observed([one, two], tmp_path / "joined", np.float16)
    read = ObservedSet.open(tmp_path / "joined")
    assert read.activations.logits.dtype == np.float16
    assert read.activations.features.dtype == np.float32
    assert [read.name(row) for row in range(5)] == [
        "0/0.png",
        "0/1.png",
        "1/0.png",
        "1/1.png",
        "1/2.png",
    ]
    assert not (tmp_path / "joined.partial").exists()


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="differ in length"):
        Activations(np.zeros((2, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="differ in length"):
        observed(np.eye(3), labels=[0, 1])


def test_training_images_are_located_among_the_others():
    features = np.random.default_rng(0).normal(size=(200, 6))
    features[7] = features[3]  # a copy hides its original
    bank = bank_of(features)
    rows = np.array([3, 7, 50])
    own = bank.locate_own(rows).neighbours
    everyone = bank.locate(bank.images.activations.take(rows)).neighbours
    assert own.rows.shape == (3, 50)
    assert not (own.rows == rows[:, None]).any()
    assert own.rows[0, 0] == 7 and own.distances[0, 0] < 1e-3
    np.testing.assert_array_equal(own.rows[2, :49], everyone.rows[2, 1:])
    assert bank_of(features[:20]).locate_own(rows[:2]).neighbours.rows.shape == (2, 20)


def test_held_out_images_are_split_by_their_pixels():
    images = observed(np.eye(900, 5))
    copies = images.ids.copy()
    copies[450:] = copies[:450]
    for ids, tuned in ((images.ids, 300), (copies, 300)):
        tuning, calibration = split_held_out(observed(np.eye(900, 5), ids=ids))
        assert len(tuning) == tuned
        np.testing.assert_array_equal(np.sort(np.r_[tuning, calibration]), np.arange(900))
        seen = {row.tobytes() for row in ids[tuning]}
        assert not seen & {row.tobytes() for row in ids[calibration]}
    again = split_held_out(observed(np.eye(900, 5), seed=5, ids=images.ids))
    np.testing.assert_array_equal(again[0], split_held_out(images)[0])


def test_one_image_cannot_both_tune_and_calibrate():
    assert [len(rows) for rows in split_held_out(observed(np.eye(2)))] == [1, 1]
    with pytest.raises(NotHeldOut, match="at least two"):
        split_held_out(observed(np.eye(1)))
