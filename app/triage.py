"""What a person decided about training images; kept for that person, whatever happens.

One line of JSON a decision, appended and flushed to disk at once: a killed process loses nothing,
and a line cut short by a full disk is passed over. The latest decision on an image counts.
"""

import json
import os
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Self

from app.locations import home

_UNSAFE = re.compile(r"[^\w.-]+")
_LONGEST_NAME = 64


class Action(StrEnum):
    """What is to become of a training image."""

    KEEP = "keep"
    RELABEL = "relabel"
    REMOVE = "remove"
    UNSURE = "unsure"
    UNDO = "undo"


@dataclass(frozen=True)
class Mark:
    """One decision.

    Attributes:
        image: what it is known by, see `Workspace.training_ids`.
        action: what is to become of it.
        label: the class it should have; "" unless it is to be relabelled.
        note: in the person's words.
        at: when, in UTC, ISO 8601.
    """

    image: str
    action: Action
    label: str = ""
    note: str = ""
    at: str = ""


@dataclass(frozen=True)
class Triage:
    """One person's decisions on one training set.

    Attributes:
        path: of the file.
    """

    path: Path

    @classmethod
    def of(cls, workspace: str, reviewer: str) -> Self:
        """The decisions of a reviewer on the training images of a workspace, by their names."""
        return cls(home() / "triage" / _file_name(workspace) / f"{_file_name(reviewer)}.jsonl")

    def marks(self) -> dict[str, Mark]:
        """The latest decision on each image; undone ones are gone."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        marks: dict[str, Mark] = {}
        for line in lines:
            try:
                raw = json.loads(line)
                mark = Mark(**{**raw, "action": Action(raw["action"])})
            except (ValueError, TypeError, KeyError):
                continue  # cut short by a full disk or a killed machine
            marks.pop(mark.image, None)
            if mark.action is not Action.UNDO:
                marks[mark.image] = mark
        return marks

    def mark(self, mark: Mark) -> None:
        """Append a decision, dated now.

        Raises:
            OSError: when it cannot be written; earlier decisions are as they were.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entry = asdict(mark) | {"at": mark.at or datetime.now(UTC).isoformat(timespec="seconds")}
        # A newline before it, too: after a line cut short, this one must not share its fate.
        data = ("\n" + json.dumps(entry, ensure_ascii=False) + "\n").encode()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, data)
            os.fsync(file)
        finally:
            os.close(file)


def _file_name(name: str) -> str:
    """Letters, digits, dots, dashes: nothing that leads out of the folder."""
    return _UNSAFE.sub("_", name).strip("._")[:_LONGEST_NAME] or "_"
