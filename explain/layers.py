"""A network with its last layer refitted, and the layers at which gradients can be read off."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from explain.head import RefittedHead
from models.anatomy import find_anatomy
from models.classifier import Classifier, NonFiniteOutput

WIDEST_INPUT = 8_192
_PROBES = 3

Keep = Callable[[int, Tensor], None]


class SharedLayer(ValueError):
    """A layer whose weights are used more than once in a pass."""


@dataclass(frozen=True)
class Layer:
    """A linear layer or an ungrouped convolution, at T positions of an image.

    Its gradient for one image is sum_t d_t a_t', d_t (O,) the gradient at its output and a_t (D,)
    its input there: a convolution's patch, and a one last where the layer has a bias.

    Attributes:
        name: in the network.
        module: the layer.
        biased: whether it has a bias.
    """

    name: str
    module: nn.Linear | nn.Conv2d
    biased: bool

    @property
    def shape(self) -> tuple[int, int]:
        """(O, D)."""
        weight = self.module.weight
        return len(weight), weight[0].numel() + self.biased

    def project_inputs(self, inputs: Tensor, basis: Tensor, images: int) -> Tensor:
        """What the layer is given for N images, times a (D, k) basis: (N, k, T)."""
        basis = basis.to(inputs)
        weight, ones = basis.T, None
        if self.biased:
            weight, ones = weight[:, :-1], weight[:, -1]
        if isinstance(self.module, nn.Linear):
            projected = nn.functional.linear(inputs, weight, ones)
            return projected.reshape(images, -1, basis.shape[1]).transpose(1, 2)
        # The product of every patch with a vector is what a filter of its numbers answers.
        filters = weight.reshape(-1, *self.module.weight.shape[1:])
        return self.module._conv_forward(inputs, filters, ones).flatten(2)

    def align_outputs(self, gradients: Tensor, images: int) -> Tensor:
        """Gradients at the output for N images: (N, O, T)."""
        if isinstance(self.module, nn.Linear):
            return gradients.reshape(images, -1, gradients.shape[-1]).transpose(1, 2)
        return gradients.flatten(2)


@dataclass(frozen=True)
class RefittedNetwork:
    """A classifier whose logits come from a refitted last layer.

    Attributes:
        classifier: the rest of it.
        last: its own last layer.
        head: that answers instead.
    """

    classifier: Classifier
    last: nn.Linear
    head: RefittedHead

    @classmethod
    def of(cls, classifier: Classifier, head: RefittedHead) -> Self:
        """Find the last layer, of which `head` is a refit."""
        inputs = classifier.inputs(_noise(classifier))
        with classifier.lock:
            last = find_anatomy(classifier.network, inputs).head
        return cls(classifier, last, head)

    def run(
        self, layers: Sequence[Layer], pixels: np.ndarray, keep: Keep
    ) -> tuple[Tensor, list[GradientEdge]]:
        """One pass; the caller holds the classifier's lock.

        Args:
            layers: L of the network's.
            pixels: (N, channels, S, S) uint8.
            keep: told, for each layer by its number, what it is given.

        Returns:
            Logits (N, C), and where the outputs of the layers that were called are in their
            graph; that stays so where a network writes over them.

        Raises:
            NonFiniteOutput: when a logit is NaN or infinite.
        """
        answers: list[Tensor] = []
        edges: dict[int, GradientEdge] = {}

        def answer(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            theta = torch.from_numpy(self.head.theta).to(output)
            answers.append(nn.functional.linear(inputs[0], theta[:, :-1], theta[:, -1]))
            return answers[0]

        def watch(number: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                keep(number, inputs[0].detach())
                edges[number] = get_gradient_edge(output)

            return after

        handles = [self.last.register_forward_hook(answer)]
        handles += [layer.module.register_forward_hook(watch(n)) for n, layer in enumerate(layers)]
        try:
            with torch.enable_grad():
                # Weights want no gradient, so the graph has to start from the input.
                inputs = self.classifier.inputs(pixels).requires_grad_()
                self.classifier.network(inputs.clone())
        finally:
            for handle in handles:
                handle.remove()
        logits = answers[0]
        finite = logits.detach().isfinite().all(dim=1)
        if not finite.all():
            raise NonFiniteOutput(
                f"The network answered NaN or infinity for {int((~finite).sum())} of "
                f"{len(pixels)} images."
            )
        return logits, [edges[number] for number in sorted(edges)]


def find_layers(network: RefittedNetwork) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The layers that can be projected, and the names of those with weights that cannot.

    Left out are other kinds (normalisation, grouped convolutions), those wider than 8,192 inputs,
    and those that a pass does not call, or calls with several images in one row.

    Raises:
        SharedLayer: when a layer is called twice in a pass, or two layers have the same weights.
    """
    named = network.classifier.network.named_modules()
    modules = {name or "network": m for name, m in named if _has_weights(m)}
    layers = [
        Layer(name, m, biased=m is network.last or m.bias is not None)
        for name, m in modules.items()
        if isinstance(m, nn.Linear | nn.Conv2d) and _can_project(m)
    ]
    calls = _count_calls(network, layers)
    weights = Counter(id(layer.module.weight) for layer in layers)
    for layer in layers:
        if calls[layer.name] > 1 or weights[id(layer.module.weight)] > 1:
            raise SharedLayer(
                f"Layer {layer.name} is used more than once in a pass. Whole-network influence "
                "needs layers whose weights are used once; the last layer's influence does not."
            )
    found = _with_images_apart(network, [layer for layer in layers if calls[layer.name]])
    return found, tuple(sorted(modules.keys() - {layer.name for layer in found}))


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _can_project(module: nn.Linear | nn.Conv2d) -> bool:
    return getattr(module, "groups", 1) == 1 and module.weight[0].numel() <= WIDEST_INPUT


def _noise(classifier: Classifier) -> np.ndarray:
    shape = (_PROBES, *classifier.preprocessing.shape)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _count_calls(network: RefittedNetwork, layers: Sequence[Layer]) -> Counter[str]:
    calls: Counter[str] = Counter()
    with network.classifier.lock:
        pixels = _noise(network.classifier)
        network.run(layers, pixels, lambda number, inputs: calls.update([layers[number].name]))
    return calls


def _with_images_apart(network: RefittedNetwork, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Those at which one image's logits depend on that image's rows only."""
    pixels = _noise(network.classifier)
    with network.classifier.lock:
        logits, edges = network.run(layers, pixels, lambda number, inputs: None)
        first = torch.zeros_like(logits)
        first[0] = torch.arange(1.0, len(first[0]) + 1)
        gradients = torch.autograd.grad(logits, edges, first, allow_unused=True)
    return tuple(
        layer
        for layer, gradient in zip(layers, gradients, strict=True)
        if gradient is not None
        and len(gradient) % len(pixels) == 0
        and not layer.align_outputs(gradient, len(pixels))[1:].any()
    )
