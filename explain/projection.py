"""Each image's gradient with respect to all weights, in a few numbers a layer."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.linalg import eigh
from torch import Tensor

from explain.layers import Layer, RefittedNetwork
from models.classifier import NonFiniteOutput

LARGEST_RANK = 32
LARGEST_SIZE = 6_000


@dataclass(frozen=True)
class Projection:
    """LoGra (Choe et al., 2024, arXiv:2405.13954, section 3.1): gradients in two bases a layer.

    A layer's gradient sum_t d_t a_t' becomes sum_t (B_o' d_t) (B_i' a_t)'. The bases are the
    leading eigenvectors of E[a a'] and of E[d d'], the latter over the labels that the network
    itself expects (LoGra's initialisation by principal components).

    Attributes:
        layers: L layers.
        input_bases: a (D, k) tensor a layer.
        output_bases: an (O, m) tensor a layer.
    """

    layers: tuple[Layer, ...]
    input_bases: tuple[Tensor, ...]
    output_bases: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        """P, all layers' m k."""
        pairs = zip(self.input_bases, self.output_bases, strict=True)
        return sum(a.shape[1] * d.shape[1] for a, d in pairs)

    @classmethod
    def fit(
        cls, network: RefittedNetwork, layers: Sequence[Layer], batches: Iterable[np.ndarray]
    ) -> Self:
        """Bases from some images: batches of (n, channels, S, S) uint8.

        Of the largest rank up to 32 with which all layers make no more than 6,000 numbers.
        """
        given, back = (
            [torch.zeros(layer.shape[side], layer.shape[side], dtype=torch.float64)
             for layer in layers]
            for side in (1, 0)
        )  # fmt: skip
        random = torch.Generator().manual_seed(0)

        def keep(number: int, inputs: Tensor) -> None:
            everything = torch.eye(len(given[number]))
            # As many rows as images: what matters here is only which vectors there are.
            given[number] += _moment(layers[number].project_inputs(inputs, everything, 1))

        for pixels in batches:
            with network.classifier.lock:
                logits, edges = network.run(layers, pixels, keep)
                weights = expected_labels(logits.detach(), 1, random)[0]
                gradients = torch.autograd.grad(logits, edges, weights)
            for number, (layer, gradient) in enumerate(zip(layers, gradients, strict=True)):
                back[number] += _moment(layer.align_outputs(gradient, len(pixels)))
        rank = _rank(layers)
        return cls(
            tuple(layers),
            tuple(_leading(moment, rank) for moment in given),
            tuple(_leading(moment, rank) for moment in back),
        )

    @classmethod
    def load(cls, layers: Sequence[Layer], path: Path) -> Self:
        """Those of the same layers, from a safetensors file that `save` wrote."""
        bases = load_file(path)
        return cls(
            tuple(layers),
            tuple(bases[f"{layer.name}.inputs"] for layer in layers),
            tuple(bases[f"{layer.name}.outputs"] for layer in layers),
        )

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        state = {}
        for layer, a, d in zip(self.layers, self.input_bases, self.output_bases, strict=True):
            state[f"{layer.name}.inputs"], state[f"{layer.name}.outputs"] = a, d
        save_file(state, path)

    def gradients(
        self, network: RefittedNetwork, pixels: np.ndarray, weigh: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Projected gradients of weighted sums of the logits, image by image.

        Args:
            network: the layers' own.
            pixels: (N, channels, S, S) uint8.
            weigh: logits (N, C) to weights (K, N, C), of K sums for each image.

        Returns:
            (K, N, P), on the classifier's device.

        Raises:
            NonFiniteOutput: when a logit or gradient is NaN or infinite.
        """
        n = len(pixels)
        a: dict[int, Tensor] = {}

        def keep(number: int, inputs: Tensor) -> None:
            layer, basis = self.layers[number], self.input_bases[number]
            a[number] = layer.project_inputs(inputs, basis, n).transpose(1, 2)

        rows = []
        with network.classifier.lock:
            logits, edges = network.run(self.layers, pixels, keep)
            for weights in weigh(logits.detach()):
                found = torch.autograd.grad(logits, edges, weights, retain_graph=True)
                parts = []
                for number, (layer, gradient) in enumerate(zip(self.layers, found, strict=True)):
                    d = self.output_bases[number].to(gradient).T @ layer.align_outputs(gradient, n)
                    parts.append((d @ a[number]).flatten(1))
                rows.append(torch.cat(parts, dim=1))
        gradients = torch.stack(rows)
        if not gradients.isfinite().all():
            raise NonFiniteOutput(f"A gradient of one of {n} images is NaN or infinite.")
        return gradients


def expected_labels(logits: Tensor, draws: int, random: torch.Generator) -> Tensor:
    """Vectors v whose products v v' sum to diag p - p p' for each image, on average.

    All C of sqrt(p_c) (e_c - p), exactly, when there are no more than `draws` classes. Else sums
    of them with random signs: unlike labels drawn from p, these do not rest on rare events.

    Args:
        logits: (N, C).
        draws: K, unless there are fewer classes.
        random: of the signs.

    Returns:
        (K, N, C).
    """
    p = logits.softmax(dim=1)
    n, classes = p.shape
    if classes <= draws:
        signs = torch.eye(classes)[:, None].expand(-1, n, -1)
    else:
        signs = torch.randint(0, 2, (draws, n, classes), generator=random) * 2.0 - 1
        signs = signs / draws**0.5
    v = signs.to(p) * p.sqrt()
    return v - p * v.sum(dim=2, keepdim=True)


def _moment(vectors: Tensor) -> Tensor:
    """(N, D, T) to their second moment (D, D)."""
    flat = vectors.transpose(0, 1).flatten(1)
    return (flat @ flat.T).cpu()


def _rank(layers: Sequence[Layer]) -> int:
    for k in range(LARGEST_RANK, 1, -1):
        if sum(min(k, o) * min(k, d) for o, d in (layer.shape for layer in layers)) <= LARGEST_SIZE:
            return k
    return 1


def _leading(moment: Tensor, rank: int) -> Tensor:
    """(D, D) to its leading eigenvectors (D, k)."""
    side = len(moment)
    vectors = eigh(moment.numpy(), subset_by_index=(max(0, side - rank), side - 1))[1]
    return torch.tensor(np.ascontiguousarray(vectors), dtype=torch.float32)
