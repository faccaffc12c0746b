"""Networks by name: torchvision's, or anyone's `module:function`."""

import importlib

import torchvision
from torch import Tensor, nn
from torchvision.models import get_model, list_models


class UnknownArchitecture(ValueError):
    """A name that leads to no network."""


def build_architecture(name: str, num_classes: int) -> nn.Module:
    """A network with fresh weights and `num_classes` outputs.

    Args:
        name: a torchvision classification architecture ("resnet18"), or "module:function"
            where the function takes `num_classes` and returns an `nn.Module`.

    Raises:
        UnknownArchitecture: when the name leads to nothing that builds.
    """
    module_name, colon, function_name = name.partition(":")
    if not colon:
        if name not in list_models(module=torchvision.models):
            raise UnknownArchitecture(
                f"torchvision has no architecture {name!r}; give one of its names "
                "(such as resnet18), or module:function."
            )
        return get_model(name, weights=None, num_classes=num_classes)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UnknownArchitecture(f"{name!r} cannot be imported: {error}") from error
    try:
        network = function(num_classes=num_classes)
    except TypeError as error:
        raise UnknownArchitecture(f"{name!r} does not take num_classes: {error}") from error
    if not isinstance(network, nn.Module):
        raise UnknownArchitecture(f"{name!r} returned {type(network).__name__}, not an nn.Module.")
    return network


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (residual + self.shortcut(x)).relu()


class DecomposedHead(nn.Module):
    """Logits h_c(z) / g(z): what speaks for a class, over how familiar the image is.

    The h of Hsu, Shen, Jin and Kira (Generalized ODIN, CVPR 2020, equation 5) is linear here, their
    variant "I"; g = sigmoid(batch norm(w z + b)) lies between 0 and 1.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.h = nn.Linear(features, num_classes)
        self.g = nn.Sequential(nn.Linear(features, 1), nn.BatchNorm1d(1), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        """(N, D) to (N, C) logits."""
        logits: Tensor = self.h(features) / self.g(features)
        return logits


def decomposed_resnet(num_classes: int, channels: int = 1) -> nn.Module:
    """`small_resnet` with a `DecomposedHead`."""
    network = small_resnet(num_classes, channels)
    assert isinstance(network, nn.Sequential)
    network[-1] = DecomposedHead(network[-1].in_features, num_classes)  # type: ignore[arg-type]
    return network


def small_resnet(num_classes: int, channels: int = 1) -> nn.Module:
    """A residual network of 0.7 M parameters for images of about 28 pixels; 128 features."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
    ]
    width = 32
    for outputs, stride in ((32, 1), (64, 2), (128, 2)):
        layers += [_ResidualBlock(width, outputs, stride), _ResidualBlock(outputs, outputs, 1)]
        width = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)]
    return nn.Sequential(*layers)
