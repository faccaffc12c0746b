"""One record per image: the same facts for a program, a spreadsheet and a data frame."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.inspection import Inspection
from app.uploads import RefusedImage, UploadedImage
from app.workspace import Workspace
from explain.influence import Influences
from ood.decision import Decision

NEIGHBOURS_SHOWN = 8
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

Record = dict[str, Any]


def image_record(
    workspace: Workspace,
    image: UploadedImage,
    inspection: Inspection,
    row: int,
    decision: Decision,
    influences: Influences | None,
) -> Record:
    """Everything that is said of one image; plain numbers, strings, lists and dicts."""
    neighbours = inspection.activations.neighbours
    assert neighbours is not None  # an Inspection's activations are located
    return {
        "file": image.name,
        "sha256": image.sha256,
        "predicted": workspace.classes[decision.predicted],
        "confidence": float(inspection.confidence[row]),
        "verdict": decision.verdict.value,
        "p_value": decision.p_value,
        "level": decision.level,
        "realised": list(decision.realised),
        "calibration_size": decision.calibration_size,
        "detector": decision.detector,
        "by_class": decision.by_class,
        "conditional": decision.method,
        "scores": {
            name: {"score": float(s[row]), "p_value": float(inspection.p_values[name][row])}
            for name, s in inspection.scores.items()
        },
        "neighbours": [
            {**_training_image(workspace, int(bank_row)), "distance": float(distance)}
            for bank_row, distance in zip(
                neighbours.rows[row, :NEIGHBOURS_SHOWN],
                neighbours.distances[row, :NEIGHBOURS_SHOWN],
                strict=True,
            )
        ],
        "influences": None if influences is None else _influence_record(workspace, influences),
        "map": [float(value) for value in inspection.places[row]],
        "note": image.note,
        "error": None,
    }


def refused_record(refused: RefusedImage) -> Record:
    """The same fields, empty but for the reason."""
    return {
        "file": refused.name, "sha256": None, "predicted": None, "confidence": None,
        "verdict": None, "p_value": None, "level": None, "realised": None,
        "calibration_size": None, "detector": None, "by_class": None, "conditional": None,
        "scores": None,
        "neighbours": None, "influences": None, "map": None, "note": None,
        "error": refused.reason,
    }  # fmt: skip


def to_json_lines(records: Sequence[Record]) -> bytes:
    """One JSON object a line."""
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()


def to_csv(records: Sequence[Record]) -> bytes:
    """Flat: a column for each detector's score and p-value, lists as JSON.

    Text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    rows = [_flat(record) for record in records]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="")
    writer.writeheader()
    writer.writerows({k: spreadsheet_safe(v) for k, v in row.items()} for row in rows)
    return buffer.getvalue().encode()


def to_parquet(records: Sequence[Record]) -> bytes:
    """Nested columns as in the JSON."""
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), sink)
    return sink.getvalue()


def spreadsheet_safe(value: object) -> object:
    """Text that a spreadsheet would run as a formula, with an apostrophe before it."""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return "'" + value
    return value


WRITERS = {"json": to_json_lines, "csv": to_csv, "parquet": to_parquet}


def _training_image(workspace: Workspace, row: int) -> Record:
    images = workspace.bank.images
    return {
        "id": images.sha256(row),
        "name": images.name(row),
        "label": workspace.classes[images.labels[row]],
    }


def _influence_record(workspace: Workspace, influences: Influences) -> Record:
    def side(rows: np.ndarray, values: np.ndarray) -> list[Record]:
        return [
            {**_training_image(workspace, int(row)), "influence": float(value)}
            for row, value in zip(rows, values, strict=True)
        ]

    return {
        "against": workspace.classes[influences.against],
        "helpful": side(influences.helpful, influences.helpful_influence),
        "harmful": side(influences.harmful, influences.harmful_influence),
    }


def _flat(record: Record) -> Record:
    flat = {}
    for key, value in record.items():
        if key == "scores":
            for name, entry in (value or {}).items():
                flat[f"{name}_score"] = entry["score"]
                flat[f"{name}_p_value"] = entry["p_value"]
        elif key == "map":
            flat["map_x"], flat["map_y"] = value or (None, None)
        elif key == "realised":
            flat["realised_low"], flat["realised_high"] = value or (None, None)
        else:
            flat[key] = json.dumps(value) if isinstance(value, list | dict) else value
    return flat
