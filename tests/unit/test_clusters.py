import time

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

from models.bank import normalise_rows
from ood.clusters import STABLE, Clusters, cluster_by_density, cluster_by_means, estimate_k

BOTH = pytest.mark.parametrize("cluster", [cluster_by_density, cluster_by_means])


def blobs(sizes, dim=24, noise=0.12, seed=0):
    """Features of some length around directions of their own, and which direction."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    middle = np.linalg.qr(rng.normal(size=(dim, dim)))[0][: len(sizes)]
    features = middle[truth] + noise * rng.normal(size=(len(truth), dim))
    shuffled = rng.permutation(len(truth))
    lengths = rng.uniform(1, 9, (len(truth), 1))
    return (features * lengths)[shuffled].astype(np.float32), truth[shuffled]


@BOTH
def test_blobs_are_found_largest_first_and_firm(cluster):
    features, truth = blobs((120, 200, 60))
    found = cluster(features)
    assert len(found) == 3
    held = found.labels >= 0
    assert held.mean() > 0.9
    assert adjusted_rand_score(truth[held], found.labels[held]) > 0.99
    assert (np.diff(np.bincount(found.labels[held])) < 0).all()
    assert (found.stability > 0.9).all()


@BOTH
def test_what_is_said_of_a_cluster_is_so(cluster):
    features, _ = blobs((90, 40))
    found = cluster(features)
    unit = normalise_rows(features)
    for number in range(len(found)):
        rows = found.members(number)
        assert (found.labels[rows] == number).all() and len(rows) == (found.labels == number).sum()
        np.testing.assert_allclose(found.centres[number], unit[rows].mean(axis=0), atol=1e-6)
        distances = np.linalg.norm(unit[rows] - found.centres[number], axis=1)
        assert (np.diff(distances) >= 0).all()
        np.testing.assert_allclose(found.distances[rows], distances, atol=1e-6)
        within = (distances <= found.radii[number] + 1e-6).mean()
        assert 0.9 <= within < 0.9 + 2 / len(rows)
        medoid = cdist(unit[rows], unit[rows], "sqeuclidean").sum(axis=1).argmin()
        assert medoid == 0
    assert np.isinf(found.distances[found.labels == -1]).all()


def test_others_join_the_nearest_cluster_whose_ball_holds_them():
    features, _ = blobs((90, 40))
    found = cluster_by_density(features)
    more, own = blobs((300, 300))
    joined = found.assign(more)
    assert 0.5 < (joined >= 0).mean() < 0.95
    mean = [more[own == number].mean(axis=0) for number in (0, 1)]
    np.testing.assert_array_equal(found.assign(np.array(mean)), [0, 1])
    assert (joined[joined >= 0] == own[joined >= 0]).all()
    distances = np.linalg.norm(normalise_rows(more)[:, None] - found.centres, axis=2)
    assert ((distances <= found.radii + 2e-3).any(axis=1) >= (joined >= 0)).all()
    assert ((distances <= found.radii - 2e-3).any(axis=1) <= (joined >= 0)).all()
    assert (found.assign(-more) == -1).all()
    overlapping = Clusters(
        labels=np.array([0, 1]), distances=np.zeros(2), stability=np.ones(2),
        centres=np.array([[1.0, 0], [0.8, 0.6]]), radii=np.array([0.1, 1.0]),
    )  # fmt: skip
    # Nearer to the first centre, but only the second's ball is wide enough.
    np.testing.assert_array_equal(overlapping.assign(np.array([[0.97, 0.24]])), [1])


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_k_is_estimated(k):
    assert estimate_k(blobs((60,) * k, noise=0.08)[0]) == k


def test_one_cloud_is_one_cluster_however_long():
    rng = np.random.default_rng(3)
    for scale in (1, np.geomspace(1, 0.05, 30)):
        cloud = 5 + rng.normal(size=(400, 30)) * scale
        assert estimate_k(cloud) == 1
        assert len(cluster_by_means(cloud)) == 1


def test_a_given_k_is_kept():
    features, _ = blobs((60, 60))
    assert len(cluster_by_means(features, k=4)) == 4
    for k in (0, 121):
        with pytest.raises(ValueError, match="from 1 to the number of images, 120"):
            cluster_by_means(features, k=k)


def test_clusters_that_are_not_there_are_not_stable():
    rng = np.random.default_rng(4)
    split = cluster_by_means(rng.normal(size=(400, 20)) + 3, k=6)
    assert (split.stability < STABLE).all()
    features, _ = blobs((100, 100))
    torn = cluster_by_means(features, k=3)
    whole, *parts = torn.stability  # the largest is the one left whole
    assert whole > 0.7 and max(parts) < 0.6


def test_stray_images_belong_to_no_dense_cluster():
    features, _ = blobs((100, 100), noise=0.05)
    stray = np.random.default_rng(5).normal(size=(30, 24)).astype(np.float32)
    found = cluster_by_density(np.concatenate([features, stray]))
    assert len(found) == 2
    assert (found.labels[200:] == -1).mean() > 0.6 and (found.labels[:200] >= 0).mean() > 0.9


@BOTH
@pytest.mark.filterwarnings("error")
def test_few_and_equal_images(cluster):
    nothing = cluster(np.empty((0, 8), np.float32))
    assert len(nothing) == 0 and nothing.centres.shape == (0, 8) and len(nothing.labels) == 0
    assert (nothing.assign(np.ones((3, 8))) == -1).all()
    for count in (1, 2, 3, 4):
        few = cluster(np.eye(4, 8, dtype=np.float32)[:count])
        if cluster is cluster_by_density:
            assert len(few) == 0 and (few.labels == -1).all()
        else:
            assert 1 <= len(few) <= count and (few.labels >= 0).all()
    for count in (5, 6, 50):
        copies = cluster(np.tile(np.arange(1, 9, dtype=np.float32), (count, 1)))
        assert len(copies) == 1 and (copies.labels == 0).all()
        assert copies.radii[0] == pytest.approx(0, abs=1e-3)
        assert copies.assign(3 * np.arange(1, 9)[None])[0] == 0
    black = cluster(np.zeros((20, 8), np.float32))
    assert len(black) == 1


@BOTH
def test_copies_of_a_few_images(cluster):
    features = np.repeat(np.eye(3, 8), 20, axis=0)
    found = cluster(features)
    assert len(found) == 3 and (np.bincount(found.labels) == 20).all()


@BOTH
def test_bad_features_are_refused(cluster):
    features, _ = blobs((10, 10))
    features[4, 2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 20 images are not finite \(first: row 4\)"):
        cluster(features)
    with pytest.raises(ValueError, match="matrix"):
        cluster(features[0])
    with pytest.raises(ValueError, match="not finite"):
        cluster(blobs((10, 10))[0]).assign(features)


@BOTH
def test_the_same_again_and_progress_to_the_end(cluster):
    features, _ = blobs((40, 30))
    told: list[float] = []
    first, again = cluster(features, progress=told.append), cluster(features)
    for name in ("labels", "distances", "centres", "radii", "stability"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert told == sorted(told) and told[-1] == 1 and len(told) > 10


@BOTH
def test_more_images_than_the_sample(cluster, monkeypatch):
    monkeypatch.setattr("ood.clusters.SAMPLE", 300)
    features, truth = blobs((1_000, 600, 400), noise=0.08)
    start = time.process_time()
    found = cluster(features)
    assert time.process_time() - start < 10
    held = found.labels >= 0
    assert len(found) == 3 and held.mean() > 0.85
    assert adjusted_rand_score(truth[held], found.labels[held]) > 0.99
    if cluster is cluster_by_means:
        assert held.all()
