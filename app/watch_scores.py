"""A file of scores, with labels where they are known, as a stream."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from app.watch_contents import NO_CLASS, Arrival
from ood.conformal import ConformalCalibration
from ood.monitoring.payoffs import Answer

_TOLD = {
    "1": Answer.UNKNOWN, "1.0": Answer.UNKNOWN, "true": Answer.UNKNOWN, "unknown": Answer.UNKNOWN,
    "0": Answer.KNOWN, "0.0": Answer.KNOWN, "false": Answer.KNOWN, "known": Answer.KNOWN,
}  # fmt: skip
_UNTOLD = ("", "nan", "none", "<na>", "null")


class ScoresRefused(ValueError):
    """A file of scores that cannot be used; the message says why."""


@dataclass(frozen=True)
class ScoreFile:
    """N scores in the order of a stream.

    Attributes:
        scores: (N,) float64, finite.
        names: N of the rows, for showing.
        sources: N; a row is known by the file's name and all rows up to it, so that of a file that
            is appended to only the new rows are taken, and another one of the same name is new.
        answers: by source, where the file says known or unknown.
    """

    scores: np.ndarray
    names: tuple[str, ...]
    sources: tuple[str, ...]
    answers: dict[str, Answer]

    def arrivals(self, calibration: np.ndarray, at_once: int) -> Iterator[list[Arrival]]:
        """In parts of so many rows.

        Args:
            calibration: (n,) scores of held-out known images.
            at_once: largest part.
        """
        p_values = ConformalCalibration(np.sort(calibration)).p_values(self.scores)
        rows = [
            Arrival(name, "", float(score), float(p_value), NO_CLASS, b"", source)
            for name, score, p_value, source in zip(
                self.names, self.scores, p_values, self.sources, strict=True
            )
        ]
        for start in range(0, len(rows), at_once):
            yield rows[start : start + at_once]


def read_scores(path: Path) -> ScoreFile:
    """Read a CSV or Parquet file with a column `score`; `unknown` and `name` where they are there.

    Raises:
        ScoresRefused: when it is not one, or a score is no finite number, or a label is none.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            # Names as they stand there: guessed numbers would change with what is appended.
            table = pd.read_csv(path, dtype={"name": str})
    except (OSError, ValueError, ImportError) as error:  # pandas' and pyarrow's are ValueErrors
        raise ScoresRefused(f"{path} cannot be read: {error}") from error
    if "score" not in table:
        raise ScoresRefused(f"{path} has no column score, but {', '.join(map(str, table))}.")
    scores = pd.to_numeric(table["score"], errors="coerce").to_numpy(np.float64)
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ScoresRefused(
            f"{path}: the score in row {row + 1} is {table['score'].iloc[row]}, no finite number."
        )
    names = [f"row {row + 1}" for row in range(len(scores))]
    if "name" in table:
        names = [str(name) for name in table["name"].fillna("")]
    sources = _sources(path.name, scores, names)
    answers = _answers(path, sources, table["unknown"]) if "unknown" in table else {}
    return ScoreFile(scores, tuple(names), sources, answers)


def _sources(file: str, scores: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    """Of each row; labels do not count, for they may be filled in later."""
    rows, sources = hashlib.sha256(), []
    for score, name in zip(scores.tolist(), names, strict=True):
        rows.update(json.dumps([score, name]).encode())
        sources.append(f"{file}\n{rows.hexdigest()}")
    return tuple(sources)


def _answers(
    path: Path, sources: tuple[str, ...], labels: "pd.Series[object]"
) -> dict[str, Answer]:
    answers = {}
    for row, (source, label) in enumerate(zip(sources, labels, strict=True)):
        text = str(label).strip().lower()
        if text in _TOLD:
            answers[source] = _TOLD[text]
        elif text not in _UNTOLD:
            raise ScoresRefused(
                f"{path}: the label in row {row + 1} is {label}; give 1 for unknown, 0 for known, "
                "or nothing."
            )
    return answers
