"""A person's decisions put to use: what they would change, and files to take away."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.audit import Audit, reasons
from app.counterfactual import Edit, refit
from app.records import Record, spreadsheet_safe, to_csv, to_parquet
from app.triage import Action, Mark
from app.workspace import Workspace

_Z = 1.96


@dataclass(frozen=True)
class Preview:
    """What the corrections do to a refitted last layer, on the calibration images.

    Attributes:
        before: share classified as labelled.
        after: the same with the corrections.
        low: lower end of the 95% interval of the difference.
        high: upper end.
        gained: images that become right.
        lost: images that become wrong.
        images: calibration images.
    """

    before: float
    after: float
    low: float
    high: float
    gained: int
    lost: int
    images: int


def edit_of(workspace: Workspace, marks: Mapping[str, Mark]) -> Edit:
    """The removals and relabellings among a person's decisions; others change nothing."""
    rows, names = workspace.rows_by_id, workspace.classes
    removed, relabelled = [], []
    for known_by, mark in marks.items():
        row = rows.get(known_by)
        if row is None:
            continue  # of another version of the training set
        if mark.action is Action.REMOVE:
            removed.append(row)
        elif mark.action is Action.RELABEL and mark.label in names:
            relabelled.append((row, names.index(mark.label)))
    return Edit(tuple(removed), tuple(relabelled))


def preview(workspace: Workspace, edit: Edit) -> Preview:
    """Refit with the corrections; the images are the same, so the difference is paired.

    The interval is Agresti and Min's (Statistics in Medicine 2005): Wald's with half an image
    added to each kind of change, which stays honest where few images change.

    Raises:
        RefitDidNotConverge: see `refit`.
    """
    before, after = refit(workspace, Edit()).right, refit(workspace, edit).right
    gained, lost, count = int((after & ~before).sum()), int((before & ~after).sum()), len(before)
    b, c, n = gained + 0.5, lost + 0.5, count + 2
    middle, spread = (b - c) / n, _Z * np.sqrt((b + c) - (b - c) ** 2 / n) / n
    return Preview(
        before=float(before.mean()),
        after=float(after.mean()),
        low=middle - spread,
        high=middle + spread,
        gained=gained,
        lost=lost,
        images=count,
    )


def issue_records(
    workspace: Workspace, audit: Audit, marks: Mapping[str, Mark], rows: Sequence[int] | np.ndarray
) -> list[Record]:
    """One record a training image: what is doubtful about it, and what was decided."""
    images, classes = workspace.bank.images, workspace.classes
    why = reasons(audit)
    records = []
    for row in rows:
        known_by = workspace.training_ids[row]
        mark = marks.get(known_by)
        suggested = int(audit.suggested[row])
        records.append(
            {
                "id": known_by,
                "file": images.name(int(row)),
                "label": classes[images.labels[row]],
                "suggested": classes[suggested] if suggested >= 0 else None,
                "reasons": [name for name, doubtful in why.items() if doubtful[row]],
                "suspicion": float(audit.suspicion[row]),
                "margin": float(audit.margin[row]),
                "disagreement": float(audit.disagreement[row]),
                "area_under_margin": _number(audit.area_under_margin[row]),
                "out_of_bag": float(audit.out_of_bag[row]),
                "harm": float(audit.harm[row]) if workspace.refits is not None else None,
                "worthlessness": float(audit.worthlessness[row]),
                "isolation": float(audit.isolation[row]),
                "duplicates": int(audit.duplicates[row]),
                "leak": _leak(workspace, int(audit.leaks[row])),
                "decision": None if mark is None else mark.action.value,
                "new_label": None if mark is None else mark.label or None,
                "note": None if mark is None else mark.note or None,
            }
        )
    return records


def cleaned_manifest(workspace: Workspace, marks: Mapping[str, Mark]) -> bytes:
    """CSV of the training images to keep: file, label, id; corrected labels in place."""
    edit = edit_of(workspace, marks)
    gone, moved = set(edit.removed), dict(edit.relabelled)
    images, classes = workspace.bank.images, workspace.classes
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["file", "label", "id"])
    for row in range(len(images)):
        if row not in gone:
            label = classes[moved.get(row, int(images.labels[row]))]
            cells = images.name(row), label, workspace.training_ids[row]
            writer.writerow([spreadsheet_safe(cell) for cell in cells])
    return buffer.getvalue().encode()


def for_cleanlab(workspace: Workspace, audit: Audit) -> bytes:
    """CSV with the columns of cleanlab's Datalab.get_issues("label"), and the file names.

    Of its label_score, small is doubtful.
    """
    images, classes = workspace.bank.images, workspace.classes
    labels = np.asarray(images.labels)
    predicted = np.where(audit.suggested >= 0, audit.suggested, labels)
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(
        ["index", "is_label_issue", "label_score", "given_label", "predicted_label", "file"]
    )
    for row in range(len(images)):
        writer.writerow(
            [
                row,
                bool(audit.flagged[row]),
                f"{1 - audit.margin[row]:.6f}",
                spreadsheet_safe(classes[labels[row]]),
                spreadsheet_safe(classes[predicted[row]]),
                spreadsheet_safe(images.name(row)),
            ]
        )
    return buffer.getvalue().encode()


def for_fiftyone(workspace: Workspace, marks: Mapping[str, Mark]) -> bytes:
    """labels.json of a FiftyOneImageClassificationDataset, with the corrected labels."""
    edit = edit_of(workspace, marks)
    gone, moved = set(edit.removed), dict(edit.relabelled)
    images = workspace.bank.images
    labels = {
        images.name(row): moved.get(row, int(images.labels[row]))
        for row in range(len(images))
        if row not in gone
    }
    return json.dumps({"classes": list(workspace.classes), "labels": labels}).encode()


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _leak(workspace: Workspace, row: int) -> str | None:
    """Name of the calibration image that is nearly the same."""
    return workspace.calibration.images.name(row) if row >= 0 else None


TABLES = {"csv": to_csv, "parquet": to_parquet}
