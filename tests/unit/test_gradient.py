import numpy as np
import pytest
import torch

from models.architectures import decomposed_resnet, small_resnet
from models.bank import Bank
from models.classifier import Classifier
from models.preprocessing import Preprocessing
from ood.combination import MEMBERS
from ood.detectors import DETECTORS, detectors_for
from ood.detectors.decomposed import GeneralizedODIN
from ood.gradient import ODIN, STEPS
from tests.unit.test_bank import observed


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (70, 3, 28, 28), np.uint8)


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    scaling = Preprocessing(28, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    return Classifier(small_resnet(4, channels=3), scaling, "abcd")


@pytest.mark.parametrize(("temperature", "step"), [(1000.0, 0.01), (2.0, 0.005)])
def test_odin_scores_as_pytorch_ood(classifier, pixels, temperature, step):
    from pytorch_ood import detector as peers

    std = list(classifier.preprocessing.std)
    peer = peers.ODIN(classifier.network, eps=step, temperature=temperature, norm_std=std)
    theirs = peer.predict(classifier.inputs(pixels)).numpy()
    ours = ODIN(temperature, step).score(classifier, pixels)
    # Where a gradient is zero but for rounding, its sign is chance: allow a pixel or two.
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_odin_is_kept_from_the_batch_and_from_the_weights(classifier, pixels):
    odin = ODIN(1000.0, 0.01)
    before = classifier.observe(pixels[:3]).logits
    together, alone = odin.score(classifier, pixels), odin.score(classifier, pixels[9:10])
    np.testing.assert_allclose(together[9], alone[0], rtol=1e-5)
    np.testing.assert_array_equal(classifier.observe(pixels[:3]).logits, before)
    assert all(p.grad is None for p in classifier.network.parameters())


def test_the_step_is_the_one_that_makes_known_images_surest(classifier, pixels):
    chosen = ODIN.fit(classifier, pixels)
    means = {step: ODIN(1000.0, step).score(classifier, pixels).mean() for step in STEPS}
    assert chosen.step == min(means, key=means.get) and chosen.temperature == 1000


def test_a_decomposed_head_is_found_and_offers_its_detector(pixels):
    torch.manual_seed(0)
    network = decomposed_resnet(4, channels=3)
    classifier = Classifier(network, Preprocessing(28, (0.5,) * 3, (0.3,) * 3), "abcd")
    assert classifier.head.divided
    seen = classifier.observe(pixels)
    with torch.inference_mode():
        head = network[-1]
        features = torch.tensor(seen.features)
        numerator, divisor = head.h(features).numpy(), head.g(features).numpy()
    np.testing.assert_allclose(seen.logits, numerator / divisor, rtol=1e-3, atol=1e-5)
    bank = Bank(observed(seen.features, seed=1), classifier.head)
    kinds = detectors_for(bank)
    assert set(kinds) - set(DETECTORS) == {"godin"} and detectors_for(classifier) == kinds
    # What takes the logits for W z + b; W z + b is the numerator alone.
    assert set(DETECTORS) - set(kinds) == {"vim", "fdbd", "nci", "react", "ash", "scale", "dice"}
    assert set(MEMBERS) <= set(kinds)
    found = kinds["godin"].fit(bank, None).score(seen)
    np.testing.assert_allclose(found, -numerator.max(axis=1), rtol=1e-4, atol=1e-5)


def test_an_ordinary_head_does_not_offer_it(classifier):
    bank = Bank(observed(np.eye(5, 128)), classifier.head)
    assert detectors_for(bank) is DETECTORS
    with pytest.raises(ValueError, match="not decomposed"):
        GeneralizedODIN.fit(bank, None)
