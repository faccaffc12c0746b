"""Fitted things as safetensors files; nothing is pickled."""

from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors.numpy import load_file, save_file

T = TypeVar("T")


def save_fitted(fitted: object, path: Path) -> None:
    """Write every field of a dataclass: arrays as they are, numbers as arrays of no dimension."""
    state = {
        field.name: np.array(getattr(fitted, field.name), order="C")
        for field in fields(fitted)  # type: ignore[arg-type]
    }
    save_file(state, path)


def load_fitted(kind: type[T], path: Path) -> T:
    """The dataclass that was saved.

    Raises:
        ValueError: when the file holds other fields than this kind has.
    """
    state = load_file(path)
    expected = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if state.keys() != expected:
        raise ValueError(
            f"{path} has {sorted(state)}, but {kind.__name__} needs {sorted(expected)}."
        )
    return kind(**{name: a if a.ndim else a.item() for name, a in state.items()})
