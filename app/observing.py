"""Observe a folder of images once, in shards that a killed run need not observe again."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from app.manifest import Skipped, WorkspaceError
from app.uploads import THUMBNAIL_SIDE, printable
from models.classifier import Classifier, NonFiniteOutput
from models.images import DecodedImage, ImageRefused, thumbnail_webp
from models.imagesets import ImageFolder
from models.observed import Blobs, ObservedSet, join_observed, stored_name
from models.preprocessing import Preprocessing

T = TypeVar("T")

SHARD = 2_048


@dataclass(frozen=True)
class ObservedFolder:
    """What a folder held.

    Attributes:
        images: those that could be read, observed.
        skipped: the others, with reasons.
    """

    images: ObservedSet
    skipped: tuple[Skipped, ...]


def once(path: Path, write: Callable[[Path], None], read: Callable[[Path], T]) -> T:
    """Read what an earlier run finished, or write it, under another name until it is complete."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name("partial-" + path.name)
        if partial.is_dir():
            shutil.rmtree(partial)
        write(partial)
        os.replace(partial, path)
    return read(path)


def observe_folder(
    classifier: Classifier, folder: ImageFolder, target: Path, dtype: type[np.floating]
) -> ObservedFolder:
    """Run the classifier over a folder, a shard at a time, and join the shards at `target`.

    Beside it stands a report of the skipped files, `target` with ".skipped.json" behind.

    Raises:
        WorkspaceError: when not one image can be read, or the network answers NaN.
    """
    shards, report = target.with_name(f"{target.name}-shards"), skipped_report(target)
    if not target.exists():
        shards.mkdir(exist_ok=True)
        skipped: list[Skipped] = []
        with tqdm(total=len(folder), desc=f"observe {folder.root.name}", unit="image") as bar:
            for start in range(0, len(folder), SHARD):
                rows = range(start, min(start + SHARD, len(folder)))
                shard = shards / f"{start:09d}"
                skipped += _observe_shard(classifier, folder, rows, shard)
                bar.update(len(rows))
        sets = [ObservedSet.open(p) for p in sorted(shards.iterdir()) if p.is_dir()]
        if not sets:
            raise WorkspaceError(
                f"Not one image of {folder.root} can be read "
                f"(first: {skipped[0].name}: {skipped[0].reason})."
            )
        for entry in skipped:
            tqdm.write(f"skipped {entry.folder}/{entry.name}: {entry.reason}")
        _write_skipped(skipped, report)
        join_observed(sets, target, dtype)
    shutil.rmtree(shards, ignore_errors=True)
    return ObservedFolder(ObservedSet.open(target), tuple(_read_skipped(report)))


def skipped_report(target: Path) -> Path:
    """Where the report of skipped files stands."""
    return target.with_name(f"{target.name}.skipped.json")


def _observe_shard(
    classifier: Classifier, folder: ImageFolder, rows: range, target: Path
) -> list[Skipped]:
    """Observe some rows, unless an earlier run has; the report is written last."""
    return once(
        skipped_report(target),
        lambda path: _write_skipped(_write_shard(classifier, folder, rows, target), path),
        _read_skipped,
    )


def _write_shard(
    classifier: Classifier, folder: ImageFolder, rows: range, target: Path
) -> list[Skipped]:
    kept: list[int] = []
    images: list[_Reduced] = []
    skipped = []
    reading = folder.read(rows, lambda decoded: _reduce(decoded, classifier.preprocessing))
    for row, image in zip(rows, reading, strict=True):
        if isinstance(image, ImageRefused):
            skipped.append(
                Skipped(folder.root.name, printable(Path(folder.names[row])), str(image))
            )
        else:
            kept.append(row)
            images.append(image)
    if images:
        try:
            activations = classifier.observe(np.stack([image.pixels for image in images]))
        except NonFiniteOutput as error:
            raise WorkspaceError(
                f"{folder.root.name}, from {folder.names[kept[0]]}: {error}"
            ) from error
        shutil.rmtree(target, ignore_errors=True)
        ObservedSet(
            activations=activations,
            labels=np.array([folder.labels[row] for row in kept], np.int32),
            ids=np.stack([image.id for image in images]),
            names=Blobs.pack([stored_name(folder.names[row]).encode() for row in kept]),
            thumbnails=Blobs.pack([image.thumbnail for image in images]),
        ).save(target)
    return skipped


@dataclass(frozen=True)
class _Reduced:
    """What is kept of an image while its shard is read."""

    pixels: np.ndarray
    id: np.ndarray
    thumbnail: bytes


def _reduce(decoded: DecodedImage, preprocessing: Preprocessing) -> _Reduced:
    return _Reduced(
        pixels=preprocessing.pixels(decoded.image),
        id=np.frombuffer(bytes.fromhex(decoded.sha256), np.uint8),
        thumbnail=thumbnail_webp(decoded.image, THUMBNAIL_SIDE),
    )


def _write_skipped(skipped: list[Skipped], path: Path) -> None:
    path.write_text(json.dumps([asdict(entry) for entry in skipped]), encoding="utf-8")


def _read_skipped(path: Path) -> list[Skipped]:
    return [Skipped(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
