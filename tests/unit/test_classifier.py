from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

from models.anatomy import HeadNotFound, find_anatomy
from models.architectures import UnknownArchitecture, build_architecture, small_resnet
from models.classifier import Classifier, NonFiniteOutput, NoStages
from models.preprocessing import Preprocessing
from ood.decision import Rule

RGB = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return Classifier(small_resnet(num_classes=3), Preprocessing(28, (0.3,), (0.3,)), "abc")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (150, 1, 28, 28), np.uint8)


def test_one_pass_leaves_logits_features_and_stage_means(classifier, pixels):
    seen = classifier.observe(pixels)
    assert seen.logits.shape == (150, 3)
    assert seen.features.shape == (150, 128)
    assert [stage.shape[1] for stage in seen.means] == [32, 64]
    assert [stage.shape[1] for stage in seen.maxima] == [32, 64, 128]
    again = seen.features @ classifier.head.weight.T + classifier.head.bias
    np.testing.assert_allclose(seen.logits, again, rtol=1e-4, atol=1e-5)


def test_channels_are_the_means_and_maxima_of_the_stages(classifier, pixels):
    inputs = classifier.inputs(pixels[:4])
    with torch.inference_mode():
        first = classifier.network[:5](inputs).cpu()
    seen = classifier.observe(pixels[:4])
    np.testing.assert_allclose(seen.means[0], first.mean(dim=(2, 3)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(seen.maxima[0], first.amax(dim=(2, 3)), rtol=1e-4, atol=1e-6)


def test_patches_are_the_last_stage_but_one_smoothed(classifier, pixels):
    inputs = classifier.inputs(pixels[:3])
    with torch.inference_mode():
        stage = classifier.network[:7](inputs)
    found = classifier.observe_patches(pixels[:3])
    assert found.shape == (3, 14, 14, 64)
    around = stage[1, :, 4:7, 8:11].mean(dim=(1, 2)).cpu()
    np.testing.assert_allclose(found[1, 5, 9], around / around.norm(), rtol=1e-4, atol=1e-5)
    corner = stage[2, :, :2, :2].mean(dim=(1, 2)).cpu()
    np.testing.assert_allclose(found[2, 0, 0], corner / corner.norm(), rtol=1e-4, atol=1e-5)


def test_a_network_without_maps_has_no_patches():
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 3))
    classifier = Classifier(flat, Preprocessing(28, (0.3,), (0.3,)), "abc")
    with pytest.raises(NoStages, match="where in the image"):
        classifier.observe_patches(np.zeros((1, 1, 28, 28), np.uint8))


class Textbook(nn.Module):
    """Two convolutions and one nn.ReLU for everything, which answers with vectors at the end."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.f1, self.f2 = nn.Linear(150, 10), nn.Linear(10, 3)
        self.pool, self.relu = nn.MaxPool2d(2), nn.ReLU()

    def maps(self, x):
        first = self.relu(self.c1(x))
        return first, self.relu(self.c2(self.pool(first)))

    def forward(self, x):
        return self.f2(self.relu(self.f1(self.pool(self.maps(x)[1]).flatten(1))))


class Pooled(Textbook):
    """The same, whose features are the means of its last maps."""

    def __init__(self):
        super().__init__()
        self.f2 = nn.Linear(6, 3)

    def forward(self, x):
        return self.f2(self.maps(x)[1].mean(dim=(2, 3)))


@pytest.mark.parametrize(("kind", "means"), [(Textbook, 2), (Pooled, 1)])
def test_a_module_that_is_called_at_two_resolutions_ends_two_stages(pixels, kind, means):
    torch.manual_seed(0)
    classifier = Classifier(kind(), Preprocessing(28, (0.3,), (0.3,)), "abc", torch.device("cpu"))
    seen = classifier.observe(pixels[:70])
    with torch.inference_mode():
        stages = classifier.network.maps(classifier.inputs(pixels[:70]))
    assert (len(seen.means), len(seen.maxima)) == (means, 2)
    for stage, mean in zip(stages, seen.means, strict=False):
        np.testing.assert_allclose(mean, stage.mean(dim=(2, 3)), rtol=1e-4, atol=1e-6)
    for stage, maximum in zip(stages, seen.maxima, strict=True):
        np.testing.assert_allclose(maximum, stage.amax(dim=(2, 3)), rtol=1e-4, atol=1e-6)
    around = stages[0][1, :, 6:8, 6:8].mean(dim=(1, 2))  # 26 x 26 pixels in 16 x 16 cells
    found = classifier.observe_patches(pixels[:70])
    assert found.shape == (70, 16, 16, 4)
    assert float(found[1, 4, 4] @ (around / around.norm()).numpy()) > 0.9


def test_an_image_is_seen_alike_alone_and_in_a_batch(classifier, pixels):
    together = classifier.observe(pixels)
    alone = classifier.observe(pixels[100:101])
    np.testing.assert_allclose(together.features[100:101], alone.features, rtol=1e-4, atol=1e-5)


def test_threads_do_not_mix_up_their_images(classifier, pixels):
    expected = classifier.observe(pixels).features
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda n: classifier.observe(pixels[n : n + 10]), range(0, 150, 10)))
    found = np.concatenate([part.features for part in parts])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_nan_is_an_error_that_says_where(pixels):
    network = small_resnet(num_classes=3)
    network[-1].bias.data[1] = torch.nan
    broken = Classifier(network, Preprocessing(28, (0.3,), (0.3,)), "abc")
    with pytest.raises(NonFiniteOutput, match="NaN or infinity for 5 of 5 images"):
        broken.observe(pixels[:5])


def test_outputs_and_classes_must_be_as_many():
    with pytest.raises(HeadNotFound, match="3 outputs but there are 4 classes"):
        Classifier(small_resnet(num_classes=3), Preprocessing(28, (0.3,), (0.3,)), "abcd")


@pytest.mark.parametrize(
    ("name", "features", "stages"),
    [
        ("resnet18", 512, [64, 64, 128, 256]),
        ("mobilenet_v3_small", 1024, [16, 72, 96, 288, 576]),
        ("swin_t", 768, [96]),  # its blocks compute in (N, H, W, channels), which are no images
    ],
)
def test_head_and_stages_are_found_in_torchvision_networks(name, features, stages):
    network = get_model(name, weights=None, num_classes=7)
    seen = Classifier(network, Preprocessing(64, **RGB), "abcdefg").observe(
        np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64), np.uint8)
    )
    assert seen.features.shape == (2, features)
    widths = [stage.shape[1] for stage in seen.means]
    assert widths == stages


def test_a_head_that_is_no_linear_layer_is_refused():
    network = get_model("squeezenet1_1", weights=None, num_classes=7).eval()
    with pytest.raises(HeadNotFound, match="does not end in a linear layer"):
        find_anatomy(network, torch.zeros(2, 3, 64, 64))


def test_a_network_for_other_inputs_is_refused():
    with pytest.raises(HeadNotFound, match="does not run on an input of"):
        find_anatomy(small_resnet(num_classes=3).eval(), torch.zeros(2, 3, 28, 28))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "no architecture"),
        ("nowhere:network", "cannot be imported"),
        ("models.architectures:nothing", "cannot be imported"),
        ("builtins:dict", "returned dict"),
        ("builtins:len", "does not take num_classes"),
        ("fcn_resnet50", "no architecture"),
    ],
)
def test_unknown_architectures_are_refused(name, message):
    with pytest.raises(UnknownArchitecture, match=message):
        build_architecture(name, 3)


def test_a_head_without_bias_has_a_bias_of_zeros():
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 3, bias=False))
    head = Classifier(network, Preprocessing(28, (0.3,), (0.3,)), "abc").head
    np.testing.assert_array_equal(head.bias, np.zeros(3))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_the_gpu_gives_the_verdicts_of_the_cpu(demo, fashion_test):
    from dataclasses import replace

    from models.loading import load_network, read_state_dict

    manifest = demo.manifest
    weights = read_state_dict(demo.path / "weights.safetensors")
    verdicts = []
    for device in ("cpu", "cuda"):
        network = load_network(manifest.model, weights, len(manifest.classes), "demo")
        classifier = Classifier(
            network, manifest.preprocessing, manifest.classes, torch.device(device)
        )
        workspace = replace(demo, classifier=classifier)
        decisions = workspace.decide(workspace.inspect(fashion_test[0][:1000]), Rule(0.05))
        verdicts.append([(d.verdict, d.predicted) for d in decisions])
    assert verdicts[0] == verdicts[1]
