"""Where in a network its evidence can be read: the head, and the end of each stage."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.architectures import DecomposedHead


class HeadNotFound(ValueError):
    """The network does not end in a linear layer over one feature vector an image."""


@dataclass(frozen=True)
class Stage:
    """The end of the part of a network that works at one resolution.

    Attributes:
        module: the last one to answer at that resolution; it may answer at others too, as the one
            nn.ReLU of a small network does.
        shape: (K, H, W) of that answer.
    """

    module: nn.Module
    shape: torch.Size


@dataclass(frozen=True)
class Anatomy:
    """The layers that are read.

    Attributes:
        head: the linear layer whose output is the network's.
        stages: one for each spatial resolution, in order.
        pooled: the stage whose channel means are the head's input; None when none is.
        divided: whether the head's output is divided before it is the network's.
    """

    head: nn.Linear
    stages: tuple[Stage, ...]
    pooled: Stage | None
    divided: bool


def find_anatomy(network: nn.Module, example: Tensor) -> Anatomy:
    """Run the network once and see which layers its evidence passes through.

    Args:
        network: in eval mode.
        example: (2, channels, S, S) input.

    Raises:
        HeadNotFound: when the network does not run or does not end in a linear layer.
    """
    heads: dict[nn.Linear, tuple[Tensor, Tensor]] = {}
    stages: dict[tuple[int, ...], tuple[Stage, Tensor]] = {}
    divided: dict[nn.Linear, Tensor] = {}
    images: set[torch.Size] = set()  # (K, H, W) as convolutions make them; others may be (H, W, K)

    def remember(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if isinstance(module, nn.Linear) and isinstance(output, Tensor):
            heads[module] = (inputs[0], output)
        if isinstance(module, DecomposedHead) and isinstance(output, Tensor):
            divided[module.h] = output
        if not (isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1):
            return
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            images.add(output.shape[1:])
        if output.shape[1:] in images:
            stage = Stage(module, output.shape[1:])
            stages[tuple(output.shape[-2:])] = (stage, output.mean(dim=(2, 3)))

    handles = [module.register_forward_hook(remember) for module in network.modules()]
    try:
        with torch.inference_mode():
            logits = network(example)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise HeadNotFound(
            f"The network does not run on an input of {tuple(example.shape[1:])} "
            f"(channels, height, width): {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    for head, (features, output) in reversed(heads.items()):
        if features.ndim == 2 and _same(divided.get(head, output), logits):
            pooled = [stage for stage, means in stages.values() if _same(means, features)]
            ends = tuple(stage for stage, _ in stages.values())
            return Anatomy(head, ends, pooled[0] if pooled else None, head in divided)
    raise HeadNotFound(
        "The network does not end in a linear layer over one feature vector an image, "
        "so its penultimate features cannot be read. Wrap it so that its logits come "
        "straight from an nn.Linear."
    )


def _same(a: Tensor, b: Tensor) -> bool:
    # A network that answers NaN is found out later, by what it answers.
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5, equal_nan=True)
