"""Logits that were logged while the classifier was trained, epoch by epoch."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from app.manifest import WorkspaceError
from models.observed import ObservedSet, stored_name


@dataclass(frozen=True)
class EpochLogits:
    """E epochs, M images, C classes.

    Attributes:
        names: (M,) str, paths in the training folder.
        logits: (E, M, C) any float.
    """

    names: np.ndarray
    logits: np.ndarray

    @classmethod
    def read(cls, path: Path, num_classes: int) -> Self:
        """From an .npz file with `names` and `logits`, as `models.train --log-epochs` writes it.

        Raises:
            WorkspaceError: when it is none, or of another number of classes.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                names, logits = stored["names"], stored["logits"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise WorkspaceError(
                f"{path} is no .npz file with names (M) and logits (epochs, M, classes): {error}"
            ) from error
        if logits.ndim != 3 or not len(logits) or logits.shape[1:] != (len(names), num_classes):
            raise WorkspaceError(
                f"{path} has {len(names)} names and logits {logits.shape}; needed are logits "
                f"(epochs, {len(names)}, {num_classes})."
            )
        if not np.isfinite(logits).all():
            raise WorkspaceError(f"Some logits in {path} are NaN or infinite.")
        return cls(names, logits)

    def rows_of(self, names: Sequence[str]) -> list[int]:
        """Where each of N images is among those logged.

        Raises:
            WorkspaceError: when one was not logged.
        """
        rows = {stored_name(str(name)): row for row, name in enumerate(self.names)}
        if missing := [name for name in names if name not in rows]:
            raise WorkspaceError(
                f"For {len(missing)} training images no logits were logged, such as {missing[0]}."
            )
        return [rows[name] for name in names]

    def of(self, images: ObservedSet) -> np.ndarray:
        """(E, N, C), in the order of N training images."""
        return self.logits[:, self.rows_of([images.name(row) for row in range(len(images))])]
