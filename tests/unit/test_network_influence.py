"""Projected gradients beside autograd's own, influences beside the head's, fits cut short."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from explain import network_fit
from explain.head import RefittedHead, refit_head
from explain.influence import HeadInfluence
from explain.layers import RefittedNetwork, SharedLayer, find_layers
from explain.network import L2, NetworkInfluence, NotFinished
from explain.network_fit import OtherRun
from explain.projection import Projection, expected_labels
from models.classifier import Classifier, NonFiniteOutput
from models.preprocessing import Preprocessing
from tests.unit.test_bank import bank_of

SIDE, CLASSES = 6, 3
SCALING = Preprocessing(SIDE, (0.5,), (0.25,))


class Overwriting(nn.Module):
    """Writes over what its convolution answered."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=2, dilation=2)

    def forward(self, x):
        y = self.conv(x)
        kept = y * 1
        return y.relu_() + kept + x


class Tokens(nn.Module):
    """A linear layer at every position of an image."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x):
        return self.inner(x.flatten(2).transpose(1, 2)).tanh().mean(dim=1)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), Overwriting(), nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 3, stride=2, padding=1, bias=False, padding_mode="reflect"),
        nn.BatchNorm2d(5), Tokens(), nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, CLASSES),
    )  # fmt: skip


def classify(network, classes=CLASSES):
    return Classifier(network, SCALING, [str(c) for c in range(classes)], torch.device("cpu"))


def some_images(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 1, SIDE, SIDE), np.uint8), rng.integers(0, CLASSES, n)


def fit(classifier, pixels, labels, folder, head=None):
    head = head or random_head(4)
    return NetworkInfluence.fit(classifier, head, pixels.__getitem__, labels, folder)


def residuals(labels):
    one = torch.eye(CLASSES, dtype=torch.float64)[torch.tensor(labels)]
    return lambda logits: (logits.softmax(1) - one)[None]


def random_head(features, classes=CLASSES, l2=L2):
    theta = np.random.default_rng(5).normal(size=(classes, features + 1))
    return RefittedHead(theta, l2, 0.0)


def refitted(network=None):
    """A network whose last layer answers otherwise."""
    return RefittedNetwork.of(classify(network or small_network()), random_head(4))


@pytest.fixture
def doubled():
    """A network in float64, whose numbers can be compared to the last digits."""
    classifier = classify(small_network())
    classifier.network.double()
    single = classifier.inputs
    classifier.inputs = lambda pixels: single(pixels).double()
    return RefittedNetwork.of(classifier, random_head(4))


def autograd_gradients(network, layer, pixels, labels):
    """(N, O, D) of each image's loss, one image at a time, its head's weights put in place."""
    found, classifier = [], network.classifier
    parameters = list(layer.module.parameters())
    theta = torch.tensor(network.head.theta)
    network.last.weight.data, network.last.bias.data = theta[:, :-1].clone(), theta[:, -1].clone()
    for image, label in zip(pixels, labels, strict=True):
        for parameter in parameters:
            parameter.requires_grad_(True)
        logits = classifier.network(classifier.inputs(image[None]))
        weight, *bias = torch.autograd.grad(
            cross_entropy(logits, torch.tensor([label])), parameters
        )
        columns = [weight.flatten(1), *(b[:, None] for b in bias)]
        found.append(torch.cat(columns, dim=1))
        for parameter in parameters:
            parameter.requires_grad_(False)
    return torch.stack(found)


def test_gradients_are_autograds_projected(doubled):
    pixels, labels = some_images(5)
    layers, skipped = find_layers(doubled)
    assert skipped == ("4",)
    assert [layer.name for layer in layers] == ["0", "1.conv", "3", "5.inner", "6", "8"]
    random = torch.Generator().manual_seed(1)
    bases = [
        [torch.randn(side, min(side, 3), generator=random, dtype=torch.float64) for side in sides]
        for sides in (layer.shape for layer in layers)
    ]
    projection = Projection(layers, tuple(b[1] for b in bases), tuple(b[0] for b in bases))
    ours = projection.gradients(doubled, pixels, residuals(labels))[0]
    theirs = [
        (b_o.T @ autograd_gradients(doubled, layer, pixels, labels) @ b_i).flatten(1)
        for layer, (b_o, b_i) in zip(layers, bases, strict=True)
    ]
    assert ours.shape == (5, projection.size)
    torch.testing.assert_close(ours, torch.cat(theirs, dim=1), rtol=1e-10, atol=1e-12)


def test_bases_are_the_principal_directions(doubled, monkeypatch):
    monkeypatch.setattr("explain.projection.LARGEST_RANK", 2)
    pixels, _ = some_images(6)
    layers, _ = find_layers(doubled)
    projection = Projection.fit(doubled, layers, [pixels[:4], pixels[4:]])
    given = []
    handle = layers[4].module.register_forward_hook(lambda m, a, b: given.append(a[0]))
    with torch.no_grad():
        doubled.classifier.network(doubled.classifier.inputs(pixels))
    handle.remove()
    patches = torch.cat([given[0], torch.ones(6, 1)], dim=1)
    expected = torch.linalg.svd(patches)[2][:2].T
    found = projection.input_bases[4].double()
    torch.testing.assert_close(found @ found.T, expected @ expected.T, rtol=0, atol=1e-5)
    for basis in (*projection.input_bases, *projection.output_bases):
        torch.testing.assert_close(basis.T @ basis, torch.eye(2), rtol=0, atol=1e-5)


def test_projection_is_no_larger_than_promised(monkeypatch):
    monkeypatch.setattr("explain.projection.LARGEST_SIZE", 60)
    network = refitted()
    layers, _ = find_layers(network)
    projection = Projection.fit(network, layers, [some_images(3)[0]])
    assert 30 < projection.size <= 60


def test_expected_labels_sum_to_the_softmaxs_covariance():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.softmax(1)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    exact = expected_labels(logits, 5, torch.Generator())
    torch.testing.assert_close(torch.einsum("kni,knj->nij", exact, exact), covariance)
    random = torch.Generator().manual_seed(0)
    drawn = [expected_labels(logits, 2, random) for _ in range(4_000)]
    mean = sum(torch.einsum("kni,knj->nij", v, v) for v in drawn) / len(drawn)
    torch.testing.assert_close(mean, covariance, rtol=0, atol=0.02)


def brute_force(influence, pixels, labels, query, target, against):
    """(N,) influences, the damped curvature and gradients, by definition, in float64."""
    network, projection = influence.network, influence.projection
    jacobian = projection.gradients(
        network, pixels, lambda logits: torch.eye(CLASSES)[:, None].expand(-1, len(logits), -1)
    ).double()
    features = network.classifier.observe(pixels).features
    p = torch.tensor(network.head.logits(features)).softmax(1)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    curvature = torch.einsum("knp,nkl,lnq->pq", jacobian, covariance, jacobian) / len(pixels)
    damped = curvature + network.head.l2 * torch.eye(len(curvature))
    gradients = projection.gradients(network, pixels, residuals(labels))[0].double()
    margin = torch.zeros(1, 1, CLASSES)
    margin[..., target], margin[..., against] = 1, -1
    q = projection.gradients(network, query[None], lambda _: margin)[0, 0].double()
    return gradients @ torch.linalg.solve(damped, q) / len(pixels), damped, gradients


def test_influence_is_its_definition(tmp_path):
    classifier = classify(small_network())
    pixels, labels = some_images(40)
    influence = fit(classifier, pixels, labels, tmp_path)
    query = some_images(1, seed=9)[0][0]
    expected, damped, gradients = brute_force(influence, pixels, labels, query, 2, 0)
    whitening = torch.tensor(influence.whitening).double()
    identity = whitening.T @ damped @ whitening
    torch.testing.assert_close(identity, torch.eye(len(damped)).double(), rtol=0, atol=1e-3)
    found = influence.on_margin(query, 2, 0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * expected.abs().max())
    own = (gradients * torch.linalg.solve(damped, gradients.T).T).sum(1)
    np.testing.assert_allclose(influence.self_influence, own, rtol=1e-3)
    np.testing.assert_allclose(influence.on_margin(query, 0, 2), -found, atol=1e-6)
    assert not influence.on_margin(query, 1, 1).any()


@pytest.mark.parametrize("bias", [True, False])
def test_a_network_of_one_layer_has_the_heads_influence(tmp_path, monkeypatch, bias):
    """Where nothing is projected away, the exact Hessian of the head is a second route."""
    monkeypatch.setattr("explain.projection.LARGEST_RANK", SIDE**2 + 1)
    torch.manual_seed(0)
    classifier = classify(nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, CLASSES, bias=bias)))
    pixels, labels = some_images(60)
    bank = bank_of(classifier.observe(pixels).features, labels)
    head = refit_head(bank.images.activations.features, labels, CLASSES, L2)
    influence = fit(classifier, pixels, labels, tmp_path, head)
    exact = HeadInfluence.fit(bank, head)
    query = some_images(1, seed=9)[0]
    expected = exact.on_margin(classifier.observe(query).features[0], 1, 2)
    found = influence.on_margin(query[0], 1, 2)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(influence.self_influence, exact.self_influence, rtol=1e-3)


class Killed(BaseException):
    pass


def stored(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_killed_fit_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(network_fit, "BATCH_SIZE", 4)
    monkeypatch.setattr(network_fit, "SHARD", 8)
    monkeypatch.setattr(network_fit, "BASIS_IMAGES", 10)
    monkeypatch.setattr(network_fit, "CURVATURE_IMAGES", 20)
    monkeypatch.setattr(network_fit, "LABEL_DRAWS", 2)  # of three classes: random signs
    classifier = classify(small_network())
    pixels, labels = some_images(30)
    fit(classifier, pixels, labels, tmp_path / "whole")
    read = []

    def fit_until(stop):
        reported = []

        def progress(done, total):
            reported.append(done)
            assert total == 60
            if done >= stop:
                raise Killed

        def reading(rows):
            read.append(len(rows))
            return pixels[rows]

        head, folder = random_head(4), tmp_path / "killed"
        NetworkInfluence.fit(classifier, head, reading, labels, folder, progress)
        return reported

    for stop in (6, 14, 25, 41, 55):
        with pytest.raises(Killed):
            fit_until(stop)
        with pytest.raises(NotFinished, match="Run it again"):
            NetworkInfluence.open(classifier, tmp_path / "killed")
    assert fit_until(1_000)[-1] == 60
    assert stored(tmp_path / "killed") == stored(tmp_path / "whole")
    assert sum(read) < 60 + 5 * 12  # at most a shard or the bases again, each time
    assert fit_until(1_000) == []


def test_one_image(tmp_path):
    classifier = classify(small_network())
    pixels, labels = some_images(1)
    influence = fit(classifier, pixels, labels, tmp_path)
    margin = influence.on_margin(pixels[0], int(labels[0]), (int(labels[0]) + 1) % CLASSES)
    assert margin.shape == (1,)
    assert margin[0] < 0  # without it, its own label would lose


def test_one_class_has_no_influence(tmp_path):
    torch.manual_seed(0)
    classifier = classify(nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 1)), classes=1)
    pixels, _ = some_images(3)
    head = random_head(SIDE**2, classes=1)
    influence = fit(classifier, pixels, np.zeros(3, int), tmp_path, head)
    assert not influence.on_margin(pixels[0], 0, 0).any()
    assert not influence.self_influence.any()


def test_no_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no training images"):
        fit(classify(small_network()), *some_images(0), tmp_path)


def test_a_folder_belongs_to_one_fit(tmp_path):
    classifier = classify(small_network())
    pixels, labels = some_images(6)
    fitted = fit(classifier, pixels, labels, tmp_path)
    opened = NetworkInfluence.open(classifier, tmp_path)
    assert (opened.on_margin(pixels[0], 0, 1) == fitted.on_margin(pixels[0], 0, 1)).all()
    with pytest.raises(OtherRun, match="other l2 and labels"):
        fit(classifier, pixels, 2 - labels, tmp_path, random_head(4, l2=1.0))
    other = classify(small_network())
    with torch.no_grad():
        other.network[0].weight[0, 0, 0, 0] += 1
    with pytest.raises(OtherRun, match="does not belong"):
        NetworkInfluence.open(other, tmp_path)


def test_shared_layers_are_refused():
    twice = nn.Linear(4, 4)
    network = nn.Sequential(
        nn.Conv2d(1, 4, SIDE), nn.Flatten(), twice, nn.ReLU(), twice, nn.Linear(4, CLASSES)
    )
    with pytest.raises(SharedLayer, match="Layer 2 is used more than once"):
        find_layers(refitted(network))
    network[4] = nn.Linear(4, 4)
    network[4].weight = network[2].weight
    with pytest.raises(SharedLayer, match="Layer 2 is used more than once"):
        find_layers(refitted(network))


class SequenceFirst(nn.Module):
    """Turns images and positions about, as some recurrent code does."""

    def __init__(self):
        super().__init__()
        self.mixed = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        return self.mixed(x.flatten(2).permute(2, 0, 1)).mean(dim=0)


def test_what_cannot_be_projected_is_named():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=2),
        SequenceFirst(), nn.Linear(4, CLASSES),
    )  # fmt: skip
    layers, skipped = find_layers(refitted(network))
    assert [layer.name for layer in layers] == ["0", "4"]
    assert skipped == ("1", "2", "3.mixed", "3.unused")


def test_logits_that_are_not_finite_are_refused(tmp_path):
    classifier = classify(small_network())
    classifier.network[6].weight[0] = float("nan")
    with pytest.raises(NonFiniteOutput, match="NaN or infinity"):
        fit(classifier, *some_images(4), tmp_path)
