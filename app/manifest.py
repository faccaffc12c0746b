"""What a workspace says of itself, and the digests that show damage."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from app.locations import MANIFEST
from models.preprocessing import Preprocessing

FORMAT = 3


class WorkspaceError(Exception):
    """A workspace that cannot be opened or prepared; the message says why and what to do."""


@dataclass(frozen=True)
class Skipped:
    """A file that `prepare` could not use."""

    folder: str
    name: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """Everything about a workspace that is not an array.

    Attributes:
        name: its name.
        about: one sentence for visitors.
        model: architecture, as `build_architecture` takes it.
        preprocessing: from image to input.
        classes: C names in the order of the logits.
        detector: name of the default one.
        chosen_by: every detector's AUROC on made-up outliers, by which the default was chosen.
        fit_seconds: what fitting each detector took.
        tuning: how many held-out images finished the detectors, apart from those that calibrate.
        temperature: that calibrates the confidence.
        calibration_accuracy: share of the calibration images classified as labelled.
        leaked: calibration images left out because the training set has them too.
        refit: of the head, for influences: l2, gradient_norm, agreement with the original, and
            pearson, spearman, slope of predicted against actual effects of leaving single images
            out, by influence and (newton_pearson and on) by a Newton step; None when it could not
            be refitted, as a large one cannot.
        skipped: files that could not be read.
        digests: sha256 of every file, by its path in the workspace.
    """

    name: str
    about: str
    model: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    detector: str
    chosen_by: dict[str, float]
    fit_seconds: dict[str, float]
    tuning: int
    temperature: float
    calibration_accuracy: float
    leaked: int
    refit: dict[str, float] | None
    skipped: tuple[Skipped, ...] = ()
    digests: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def read(cls, workspace: Path) -> Self:
        """The manifest of a workspace, every file's digest checked.

        Raises:
            WorkspaceError: when there is none, it is of another format, or a file has changed.
        """
        path = workspace / MANIFEST
        if not path.is_file():
            raise WorkspaceError(
                f"{workspace} is not a workspace: it has no {MANIFEST}. Prepare one with "
                "python -m app prepare."
            )
        try:
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if raw.get("format") != FORMAT:
                raise WorkspaceError(
                    f"{workspace} has format {raw.get('format')}, this Kindred reads {FORMAT}. "
                    "Prepare it again."
                )
            preprocessing: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in raw.pop("preprocessing").items()
            }
            manifest = cls(
                preprocessing=Preprocessing(**preprocessing),
                classes=tuple(raw.pop("classes")),
                skipped=tuple(Skipped(**entry) for entry in raw.pop("skipped")),
                **raw,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorkspaceError(f"{path} is damaged: {error}") from error
        check_digests(workspace, manifest.digests, "prepare the workspace again")
        return manifest

    def write(self, workspace: Path) -> None:
        """Write the manifest."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (workspace / MANIFEST).write_text(text + "\n", encoding="utf-8")


def check_digests(folder: Path, digests: Mapping[str, str], remedy: str) -> None:
    """Compare files with what they were.

    Args:
        folder: that holds them.
        digests: sha256 of each, by its path in the folder.
        remedy: what to do, unless a file can be restored.

    Raises:
        WorkspaceError: when one is missing or has changed.
    """
    for name, expected in digests.items():
        if not (folder / name).is_file():
            raise WorkspaceError(
                f"{folder} is incomplete: {name} is missing. Restore it or {remedy}."
            )
        if file_digest(folder / name) != expected:
            raise WorkspaceError(
                f"{folder / name} has changed since it was prepared (its sha256 differs). "
                f"Restore it or {remedy}."
            )


def file_digest(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def all_digests(workspace: Path) -> dict[str, str]:
    """Every file's digest, by its path in the workspace."""
    files = sorted(p for p in workspace.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(workspace).as_posix(): file_digest(p) for p in files}
