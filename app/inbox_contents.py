"""What goes into the inbox and what comes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from sqlalchemy import Row

ITEM_COLUMNS = (
    "id", "pass_id", "position", "sha256", "name", "p_value", "predicted", "state", "features",
    "means",
)  # fmt: skip
_VECTOR = np.dtype("<f4")
_SECONDS = len("2026-01-01T00:00:00")


class State(StrEnum):
    """What a person decided about a flagged image."""

    NEW = "new"
    DISMISSED = "dismissed"


@dataclass(frozen=True)
class Flagged:
    """The N flagged images of one pass: D features, K_l channels of stage l.

    Attributes:
        positions: (N,) of each among the images inspected in the pass, ascending from 0.
        sha256: N digests of their pixels, in hex.
        names: N file names.
        pictures: N image files; any that `decode_image` takes, stored as `plain_picture` says.
        p_values: (N,).
        predicted: (N,) index of the class.
        features: (N, D).
        means: (N, K_l) for each stage l; often none.
    """

    positions: np.ndarray
    sha256: Sequence[str]
    names: Sequence[str]
    pictures: Sequence[bytes]
    p_values: np.ndarray
    predicted: np.ndarray
    features: np.ndarray
    means: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        columns = (
            self.positions, self.sha256, self.names, self.pictures,
            self.p_values, self.predicted, self.features, *self.means,
        )  # fmt: skip
        if len({len(column) for column in columns}) > 1:
            raise ValueError(
                f"Every flagged image needs one of each; given are {[len(c) for c in columns]}."
            )
        if any(matrix.ndim != 2 for matrix in (self.features, *self.means)):
            raise ValueError("Features and means of the stages must be matrices, a row an image.")
        if not all(np.isfinite(m).all() for m in (self.p_values, self.features, *self.means)):
            raise ValueError("Features, means and p-values must be finite.")
        if np.any(np.diff(self.positions) <= 0) or np.any(np.asarray(self.positions) < 0):
            raise ValueError("Positions must ascend, from 0 on.")

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def widths(self) -> tuple[int, str]:
        """How many features there are, and how many channels in each stage, as text."""
        return self.features.shape[1], ",".join(str(stage.shape[1]) for stage in self.means)

    def rows(self) -> list[dict[str, Any]]:
        """Of the table of items, without the pass."""
        features = self.features.astype(_VECTOR)
        means = np.concatenate([np.empty((len(self), 0)), *self.means], axis=1).astype(_VECTOR)
        return [
            {
                "position": int(self.positions[row]),
                "sha256": self.sha256[row],
                "name": storable(self.names[row]),
                "p_value": float(self.p_values[row]),
                "predicted": int(self.predicted[row]),
                "state": State.NEW.value,
                "features": features[row].tobytes(),
                "means": means[row].tobytes(),
            }
            for row in range(len(self))
        ]


@dataclass(frozen=True)
class Vectors:
    """What the network made of N images: D features, K_l channels of stage l.

    Attributes:
        features: (N, D) float32.
        means: (N, K_l) float32 for each stage l.
    """

    features: np.ndarray
    means: tuple[np.ndarray, ...]

    @classmethod
    def unpack(
        cls, features: Sequence[bytes], means: Sequence[bytes], dimensions: int, stages: str
    ) -> Self:
        """N stored rows as matrices: 32-bit floats end to end, the lowest byte first.

        Raises:
            ValueError: when a row is longer or shorter than the others.
        """
        widths = [int(width) for width in stages.split(",") if width]
        joined = _matrix(means, sum(widths))
        return cls(
            features=_matrix(features, dimensions),
            means=tuple(np.split(joined, np.cumsum(widths)[:-1], axis=1)) if widths else (),
        )


@dataclass(frozen=True)
class Stream:
    """The N images in a workspace's inbox, in the order in which they were inspected.

    Dismissed ones are among them: a test over the stream must see what it saw before.

    Passes may have been flagged at several levels. For a test at level a, take those with
    `p_values` <= a: of passes at lower levels some are then missing, which makes such a test
    slower, never wrong.

    Attributes:
        ids: (N,) int64, of the items.
        sha256: (N,) of the pixels, in hex.
        names: N file names.
        created: (N,) datetime64[s], UTC, of the pass.
        levels: (N,) share of known images flagged in the pass.
        p_values: (N,).
        predicted: (N,) index of the class.
        dismissed: (N,) bool.
        vectors: features and means of the stages.
        inspected_before: (N,) int64, images inspected by the workspace up to this one, itself
            included; ascending.
        counted: (N,) bool; False for images of passes that were picked after they had been seen.
            They are no evidence for a test over the stream; `inspected_before` leaves them out.
        inspected: how many were inspected in all, without such passes.
        passes: (P, 2) int64, number and size of each pass, those without a flagged image too.
    """

    ids: np.ndarray
    sha256: np.ndarray
    names: tuple[str, ...]
    created: np.ndarray
    levels: np.ndarray
    p_values: np.ndarray
    predicted: np.ndarray
    dismissed: np.ndarray
    vectors: Vectors
    inspected_before: np.ndarray
    counted: np.ndarray
    inspected: int
    passes: np.ndarray

    @classmethod
    def of(
        cls, passes: Sequence[Row[Any]], items: Sequence[Row[Any]], dimensions: int, stages: str
    ) -> Self:
        """From the rows of P passes and of N items, both in order.

        Raises:
            ValueError: see `Vectors.unpack`.
        """
        columns = list(zip(*items, strict=True)) or [()] * len(ITEM_COLUMNS)
        ids, pass_ids, positions, sha256, names, p_values, predicted, states, *vectors = columns
        sizes = np.array([row.inspected for row in passes], np.int64)
        of_pass = np.searchsorted([row.id for row in passes], np.array(pass_ids, np.int64))
        counted, before = sizes[of_pass] > 0, (np.cumsum(sizes) - sizes)[of_pass]
        created = np.array([row.created[:_SECONDS] for row in passes], "datetime64[s]")
        return cls(
            ids=np.array(ids, np.int64),
            sha256=np.array(sha256, "U64"),
            names=names,
            created=created[of_pass],
            levels=np.array([row.level for row in passes], float)[of_pass],
            p_values=np.array(p_values, float),
            predicted=np.array(predicted, np.int64),
            dismissed=np.array(states, "U16") == State.DISMISSED,
            vectors=Vectors.unpack(vectors[0], vectors[1], dimensions, stages),
            inspected_before=before + np.where(counted, np.array(positions, int) + 1, 0),
            counted=counted,
            inspected=int(sizes.sum()),
            passes=np.array([(row.id, row.inspected) for row in passes], np.int64).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class NewClass:
    """A class that was named, and the M pictures that taught it.

    Attributes:
        id: its number.
        name: its name.
        created: when, in UTC, ISO 8601.
        undone: when it was taken back; "" while it is in force.
        sha256: M digests of pixels, in hex.
        vectors: features and means of the stages, M rows.
    """

    id: int
    name: str
    created: str
    undone: str
    sha256: tuple[str, ...]
    vectors: Vectors

    @classmethod
    def of(cls, row: Row[Any], members: Sequence[Row[Any]], dimensions: int, stages: str) -> Self:
        """From its row and those of its members.

        Raises:
            ValueError: see `Vectors.unpack`.
        """
        features, means = [m.features for m in members], [m.means for m in members]
        return cls(
            id=row.id,
            name=row.name,
            created=row.created,
            undone=row.undone,
            sha256=tuple(member.sha256 for member in members),
            vectors=Vectors.unpack(features, means, dimensions, stages),
        )


@dataclass(frozen=True)
class Counts:
    """How much of a workspace is in the inbox.

    Attributes:
        passes: batches inspected.
        inspected: images inspected in them.
        flagged: images kept, of those.
        dismissed: images kept that were dismissed.
    """

    passes: int
    inspected: int
    flagged: int
    dismissed: int


def storable(name: str) -> str:
    """A name as every database takes it: without halves of characters and without zeros."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\0", "\ufffd")


def _matrix(rows: Sequence[bytes], width: int) -> np.ndarray:
    if any(len(row) != width * _VECTOR.itemsize for row in rows):
        raise ValueError(f"A row has not {width} values.")
    return np.frombuffer(b"".join(rows), _VECTOR).reshape(len(rows), width)
