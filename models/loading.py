"""Classifiers from files."""

from pathlib import Path
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights

from models.architectures import UnknownArchitecture, build_architecture
from models.preprocessing import Preprocessing


class WeightsRefused(ValueError):
    """Weights that cannot be read, or are not of this network."""


def load_network(model: str, state: dict[str, Tensor], num_classes: int, source: str) -> nn.Module:
    """An architecture with weights.

    Args:
        model: see `build_architecture`.
        state: tensors by name.
        num_classes: outputs that the network must have.
        source: where the weights come from, for messages.

    Raises:
        WeightsRefused: when the tensors do not fit.
        UnknownArchitecture: when `model` leads to nothing.
    """
    network = build_architecture(model, num_classes)
    expected = network.state_dict()
    # Files from before PyTorch counted batches lack the counters; nothing here reads them.
    counters = {name: t for name, t in expected.items() if name.endswith("num_batches_tracked")}
    state = counters | state
    missing = sorted(expected.keys() - state.keys())
    surplus = sorted(state.keys() - expected.keys())
    if missing or surplus:
        raise WeightsRefused(
            f"{source} is not a state dict of {model}: "
            f"{len(missing)} tensors are missing ({', '.join(missing[:3]) or 'none'}), "
            f"{len(surplus)} are unknown to it ({', '.join(surplus[:3]) or 'none'})."
        )
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise WeightsRefused(
                f"{source}: {name} is {tuple(state[name].shape)}, but {model} with "
                f"{num_classes} classes has {tuple(tensor.shape)}. If this is the last layer, "
                "the class folders do not match the head's size."
            )
    network.load_state_dict(state)
    return network


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors by name; unwraps {"state_dict": ...} and strips DataParallel's "module."."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsRefused(f"{path} does not exist.") from None
    except (SafetensorError, OSError, EOFError, RuntimeError) as error:
        raise WeightsRefused(f"{path} cannot be read as weights: {error}") from error
    except Exception as error:  # torch's unpickler raises pickle.UnpicklingError and worse
        raise WeightsRefused(
            f"{path} holds more than tensors and is not opened; save model.state_dict(). ({error})"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise WeightsRefused(f"{path} is not a state dict: a mapping of names to tensors.")
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def torchvision_weights(model: str, name: str) -> WeightsEnum:
    """An entry of torchvision's list of published weights, such as "DEFAULT".

    Raises:
        WeightsRefused: when torchvision publishes none by this name.
    """
    try:
        choices = get_model_weights(model)
    except ValueError as error:
        raise UnknownArchitecture(f"torchvision has no architecture {model!r}.") from error
    if name not in choices.__members__:
        raise WeightsRefused(
            f"{name!r} is neither a file nor published weights of {model}; "
            f"published are {', '.join(choices.__members__)}."
        )
    return choices[name]


def download_weights(entry: WeightsEnum) -> dict[str, Tensor]:
    """Published weights, from torch's cache or over the network.

    Raises:
        WeightsRefused: when this machine cannot fetch them; says from where and what to do.
    """
    try:
        return dict(entry.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except (URLError, OSError, RuntimeError) as error:
        raise WeightsRefused(
            f"{entry} could not be downloaded from {entry.url} ({error}). Fetch that file on "
            "a machine with access and give its path with --weights."
        ) from error


def published_preprocessing(entry: WeightsEnum) -> Preprocessing:
    """The preprocessing that published weights were evaluated with."""
    transforms = entry.transforms()
    return Preprocessing(
        image_size=transforms.crop_size[0],
        resize=transforms.resize_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
