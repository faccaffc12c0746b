"""Images that the classifier has observed, kept on disk and mapped into memory.

A folder holds one `ObservedSet`: `logits.npy`, `features.npy`, `means-00.npy`, `maxima-00.npy`
and on, `labels.npy`, `ids.npy`, and `names` and `thumbnails` as one file of bytes with offsets
each. Opening reads only headers.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike

from models.activations import Activations

_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Blobs:
    """N byte strings end to end.

    Attributes:
        data: (bytes,) uint8.
        offsets: (N + 1,) int64; string i is data[offsets[i]:offsets[i + 1]].
    """

    data: np.ndarray
    offsets: np.ndarray

    @classmethod
    def pack(cls, items: Sequence[bytes]) -> Self:
        """Byte strings, joined."""
        offsets = np.cumsum([0, *map(len, items)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(items), np.uint8), offsets)

    def take(self, rows: np.ndarray) -> Self:
        """Some of the strings, copied."""
        return self.pack([self[row] for row in rows])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes()


@dataclass(frozen=True)
class ObservedSet:
    """N images with what the classifier's pass left behind.

    Attributes:
        activations: logits (N, C), features (N, D), means and maxima (N, K_l).
        labels: (N,) int32, index into the classes.
        ids: (N, 32) uint8, sha256 of each image's pixels.
        names: N paths relative to the image folder, UTF-8.
        thumbnails: N WebP files.
    """

    activations: Activations
    labels: np.ndarray
    ids: np.ndarray
    names: Blobs
    thumbnails: Blobs

    def __post_init__(self) -> None:
        parts = (self.labels, self.ids, self.names, self.thumbnails)
        if {len(self.activations)} != {len(part) for part in parts}:
            raise ValueError("activations, labels, ids, names and thumbnails differ in length.")

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, row: int) -> str:
        """The image's path relative to its folder."""
        return self.names[row].decode()

    def take(self, rows: np.ndarray) -> Self:
        """Some of the images, copied into memory."""
        return type(self)(
            activations=self.activations.take(rows),
            labels=self.labels[rows],
            ids=self.ids[rows],
            names=self.names.take(rows),
            thumbnails=self.thumbnails.take(rows),
        )

    def sha256(self, row: int) -> str:
        """The image's identity in hex."""
        return self.ids[row].tobytes().hex()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map a saved set into memory, read-only."""

        def mapped(name: str) -> np.ndarray:
            return np.load(folder / name, mmap_mode="r", allow_pickle=False)

        def stages(kind: str) -> tuple[np.ndarray, ...]:
            return tuple(mapped(path.name) for path in sorted(folder.glob(f"{kind}-*.npy")))

        return cls(
            activations=Activations(
                logits=mapped("logits.npy"),
                features=mapped("features.npy"),
                means=stages("means"),
                maxima=stages("maxima"),
            ),
            labels=mapped("labels.npy"),
            ids=mapped("ids.npy"),
            names=Blobs(mapped("names.npy"), mapped("names.offsets.npy")),
            thumbnails=Blobs(mapped("thumbnails.npy"), mapped("thumbnails.offsets.npy")),
        )

    def save(self, folder: Path) -> None:
        """Write to a folder, atomically: it appears complete or not at all."""
        join_observed([self], folder, np.float32)


def stored_name(name: str) -> str:
    """A file name as it is kept, even when its bytes are no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def join_observed(sets: Sequence[ObservedSet], folder: Path, dtype: DTypeLike) -> None:
    """Write several sets as one, in order, a set at a time.

    Args:
        sets: at least one, of the same classes and features.
        folder: created; it appears complete or not at all.
        dtype: of the activations; float16 gives way to float32 where it overflows.
    """
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    _join_arrays([s.activations.logits for s in sets], partial / "logits.npy", dtype)
    _join_arrays([s.activations.features for s in sets], partial / "features.npy", dtype)
    for kind in ("means", "maxima"):
        parts: list[tuple[np.ndarray, ...]] = [getattr(s.activations, kind) for s in sets]
        for number, stage in enumerate(zip(*parts, strict=True)):
            _join_arrays(stage, partial / f"{kind}-{number:02d}.npy", dtype)
    _join_arrays([s.labels for s in sets], partial / "labels.npy", np.int32)
    _join_arrays([s.ids for s in sets], partial / "ids.npy", np.uint8)
    for name in ("names", "thumbnails"):
        blobs: list[Blobs] = [getattr(s, name) for s in sets]
        _join_arrays([b.data for b in blobs], partial / f"{name}.npy", np.uint8)
        lengths = np.concatenate([np.diff(b.offsets) for b in blobs])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        np.save(partial / f"{name}.offsets.npy", offsets)
    os.replace(partial, folder)


def _join_arrays(arrays: Sequence[np.ndarray], path: Path, dtype: DTypeLike) -> None:
    if dtype == np.float16 and max(np.abs(a).max(initial=0) for a in arrays) > _FLOAT16_MAX:
        dtype = np.float32
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    if 0 in shape:  # an empty file cannot be mapped
        np.save(path, np.empty(shape, dtype))
        return
    joined = open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    start = 0
    for array in arrays:
        joined[start : start + len(array)] = array
        start += len(array)
    joined.flush()
