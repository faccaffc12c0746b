"""Fitted detectors as safetensors files; nothing is pickled."""

from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors.numpy import load_file, save_file

from ood.detectors.base import Detector

D = TypeVar("D", bound=Detector)


def save_detector(detector: Detector, path: Path) -> None:
    """Write every field: arrays as they are, numbers as arrays without dimensions."""
    state = {
        field.name: np.array(getattr(detector, field.name), order="C")
        for field in fields(detector)  # type: ignore[arg-type]
    }
    save_file(state, path)


def load_detector(kind: type[D], path: Path) -> D:
    """The detector that was saved.

    Raises:
        ValueError: when the file holds other fields than this kind of detector has.
    """
    state = load_file(path)
    expected = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if state.keys() != expected:
        raise ValueError(
            f"{path} has {sorted(state)}, but {kind.__name__} needs {sorted(expected)}."
        )
    return kind(**{name: a if a.ndim else a.item() for name, a in state.items()})
