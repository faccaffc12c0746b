import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from models.activations import Activations, Head
from models.bank import Bank, normalise_rows
from ood.detectors import DETECTORS, load_detector, save_detector
from tests.unit.test_bank import bank_of, observed


@pytest.fixture(scope="module")
def seen(demo, fashion_test):
    """300 known and 300 unknown test images, as the demo's classifier saw them."""
    pixels, _, known = fashion_test
    rows = np.concatenate([np.flatnonzero(known)[:300], np.flatnonzero(~known)[:300]])
    return demo.bank.locate(demo.classifier.observe(pixels[rows]))


def rank_agreement(a, b) -> float:
    return spearmanr(np.asarray(a, np.float64), np.asarray(b, np.float64)).statistic


@pytest.mark.parametrize(("name", "peer"), [("msp", "MaxSoftmax"), ("energy", "EnergyBased")])
def test_logit_detectors_rank_as_pytorch_ood(demo, seen, name, peer):
    import pytorch_ood.detector as peers

    theirs = getattr(peers, peer)(None).predict_logits(torch.tensor(seen.logits))
    assert rank_agreement(demo.detectors[name].score(seen), theirs) > 0.9999


def test_gen_ranks_as_pytorch_ood(demo, seen):
    from pytorch_ood.detector import GEN

    theirs = GEN(None, gamma=0.1).predict_logits(torch.tensor(seen.logits))
    assert rank_agreement(demo.detectors["gen"].score(seen), theirs) > 0.9999


@pytest.fixture(scope="module")
def training(demo):
    images = demo.bank.images
    return np.asarray(images.activations.features, np.float32), np.asarray(images.labels)


def test_mahalanobis_ranks_as_pytorch_ood_on_normalised_features(demo, seen, training):
    from pytorch_ood.detector import Mahalanobis

    features, labels = training
    peer = Mahalanobis(None).fit_features(
        torch.tensor(normalise_rows(features)), torch.tensor(labels).long()
    )
    theirs = peer.predict_features(torch.tensor(normalise_rows(seen.features)))
    assert rank_agreement(demo.detectors["mahalanobis"].score(seen), theirs) > 0.9999


def test_knn_ranks_as_pytorch_ood_on_normalised_features(demo, seen, training):
    from pytorch_ood.detector import KNN

    features, labels = training
    peer = KNN(None, n_neighbors=50).fit_features(
        torch.tensor(normalise_rows(features)), torch.tensor(labels).long()
    )
    theirs = peer.predict_features(torch.tensor(normalise_rows(seen.features)))
    assert rank_agreement(demo.detectors["knn"].score(seen), theirs) > 0.9999


def test_vim_ranks_as_pytorch_ood(demo, seen, training, monkeypatch):
    """pytorch-ood rounds to float32 before its eigenvectors, which here mixes the 64th (8.5e-4)
    with the 65th (8.8e-4): rank agreement 0.99988. Its own code, kept in float64, agrees."""
    from pytorch_ood.detector import ViM

    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    features, labels = training
    weight, bias = (
        torch.tensor(a, dtype=torch.float64) for a in vars(demo.classifier.head).values()
    )
    peer = ViM(None, d=64, w=weight, b=bias).fit_features(
        torch.tensor(features), torch.tensor(labels).long()
    )
    theirs = peer.predict_features(torch.tensor(seen.features))
    assert theirs.dtype == torch.float64
    assert rank_agreement(demo.detectors["vim"].score(seen), theirs) > 0.999999


def test_layered_mahalanobis_is_the_distance_by_the_book(demo, seen):
    """A second route: explicit inverse in float64, one class at a time."""
    images = demo.bank.images

    def stacked(activations):
        layers = (*activations.channels, activations.features)
        return np.hstack([x / np.linalg.norm(np.float64(x), axis=1, keepdims=True) for x in layers])

    vectors, labels = stacked(images.activations), np.asarray(images.labels)
    means = np.stack([vectors[labels == c].mean(axis=0) for c in range(8)])
    centred = vectors - means[labels]
    covariance = centred.T @ centred / len(centred)
    precision = np.linalg.inv(
        covariance + 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    queries = stacked(seen)
    distances = [np.einsum("nd,de,ne->n", queries - m, precision, queries - m) for m in means]
    ours = demo.detectors["layers"].score(seen)
    np.testing.assert_allclose(ours, np.min(distances, axis=0), rtol=2e-3)


@pytest.mark.parametrize("name", DETECTORS)
def test_larger_means_more_outlying(demo, seen, name):
    scores = demo.detectors[name].score(seen)
    assert scores.dtype == np.float32 and scores.shape == (600,)
    assert np.median(scores[300:]) > np.median(scores[:300])


@pytest.mark.parametrize("name", DETECTORS)
def test_scores_do_not_depend_on_the_batch(demo, seen, name):
    detector = demo.detectors[name]
    alone = demo.bank.locate(seen.take(np.arange(7, 8)))
    np.testing.assert_allclose(detector.score(seen)[7], detector.score(alone)[0], rtol=1e-4)


@pytest.mark.parametrize("name", DETECTORS)
def test_saved_detectors_score_the_same(demo, seen, name, tmp_path):
    detector = demo.detectors[name]
    save_detector(detector, tmp_path / "d.safetensors")
    again = load_detector(DETECTORS[name], tmp_path / "d.safetensors")
    np.testing.assert_array_equal(detector.score(seen), again.score(seen))


def test_a_detector_of_another_kind_does_not_load(demo, tmp_path):
    save_detector(demo.detectors["knn"], tmp_path / "d.safetensors")
    with pytest.raises(ValueError, match="ViM needs"):
        load_detector(DETECTORS["vim"], tmp_path / "d.safetensors")


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("kind", ["identical", "zeros", "one class", "constant features"])
def test_degenerate_training_sets_give_finite_scores(name, kind):
    rng = np.random.default_rng(0)
    features = {
        "identical": np.ones((60, 8)),
        "zeros": np.zeros((60, 8)),
        "one class": rng.normal(size=(60, 8)),
        "constant features": np.hstack([rng.normal(size=(60, 4)), np.ones((60, 4))]),
    }[kind]
    labels = np.zeros(60, int) if kind == "one class" else np.arange(60) % 3
    bank = bank_of(features, labels)
    queries = bank.locate(observed(rng.normal(size=(5, 8)), seed=3).activations)
    assert np.isfinite(DETECTORS[name].fit(bank).score(queries)).all()


@pytest.mark.parametrize("name", DETECTORS)
def test_each_detector_names_its_source_and_reads_only_what_it_declares(demo, seen, name):
    info = DETECTORS[name].info
    assert info.name == name and info.paper.url.startswith("https://") and info.question
    nan = Activations(
        logits=seen.logits if "logits" in info.consumes else np.full_like(seen.logits, np.nan),
        features=(
            seen.features if "features" in info.consumes else np.full_like(seen.features, np.nan)
        ),
        channels=seen.channels if "channels" in info.consumes else (),
        neighbours=seen.neighbours if "neighbours" in info.consumes else None,
    )
    np.testing.assert_array_equal(demo.detectors[name].score(nan), demo.detectors[name].score(seen))


def test_knn_without_neighbours_says_what_to_do(seen):
    with pytest.raises(ValueError, match=r"Bank\.locate"):
        DETECTORS["knn"](k=1).score(Activations(seen.logits, seen.features))


def test_vim_takes_the_papers_dimensions():
    assert [DETECTORS["vim"].principal_dimensions(d) for d in (64, 768, 2048)] == [32, 512, 1000]
    bank = Bank(observed(np.eye(6)), Head(np.zeros((3, 6), np.float32), np.ones(3, np.float32)))
    assert DETECTORS["vim"].fit(bank).residual.shape == (6, 3)
