"""The whole of a watched stream as a file, and back to the same numbers."""

import io
import json
import platform
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.watch_contents import settings_from_json, settings_to_json
from app.watch_log import Event
from app.watch_replay import WHY_OTHER, OtherDecision, Replay, state_digest
from ood.monitoring.monitor import Monitor
from ood.monitoring.settings import Settings

_KEY = b"kindred.watch"
_FORMAT = 1
_SCHEMA = pa.schema(
    [
        ("id", pa.int64()), ("kind", pa.string()), ("item", pa.int64()), ("created", pa.string()),
        ("name", pa.string()), ("sha256", pa.string()), ("score", pa.float64()),
        ("p_value", pa.float64()), ("predicted", pa.int64()), ("threshold", pa.float64()),
        ("flagged", pa.bool_()), ("asked", pa.bool_()), ("probability", pa.float64()),
        ("answer", pa.int64()), ("by", pa.string()), ("reason", pa.string()),
    ]
)  # fmt: skip


class RecordError(ValueError):
    """A file that is no record of a stream, or a damaged one."""


class OtherNumbers(RecordError):
    """A record that replays to other numbers than it holds; the message says where first."""


def record_of(
    name: str, settings: Settings, calibration: np.ndarray, events: Iterable[Event],
    monitor: Monitor,
) -> bytes:  # fmt: skip
    """A Parquet file: a row for each event; settings and calibration scores among its metadata.

    Args:
        name: of the stream.
        settings: of the monitor.
        calibration: (n,) scores; written so that they are read to the same bits.
        events: all of them.
        monitor: after the last.
    """
    about = {
        "format": _FORMAT,
        "name": name,
        "settings": json.loads(settings_to_json(settings)),
        "calibration": calibration.tolist(),
        "state": state_digest(monitor),
        "made_on": _machine(),
    }
    columns = {
        field.name: pa.array(values, field.type)
        for field, values in zip(
            _SCHEMA, list(zip(*map(_row, events), strict=True)) or [()] * len(_SCHEMA), strict=True
        )
    }
    table = pa.table(columns, _SCHEMA.with_metadata({_KEY: json.dumps(about).encode()}))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _machine() -> dict[str, str]:
    """What the last digits of a number may depend on; "" where it is not known."""
    extensions = np.show_config(mode="dicts").get("SIMD Extensions", {})
    return {
        "machine": platform.machine(),
        "processor": platform.processor(),
        "extensions": " ".join(extensions.get("found", [])),
        "numpy": np.__version__,
    }


def _row(event: Event) -> tuple[object, ...]:
    mapping = event._mapping
    return tuple(mapping[name] for name in _SCHEMA.names)


def replayed(record: bytes) -> Monitor:
    """The monitor of a record, run again over all of it.

    Raises:
        RecordError: when it is no record.
        OtherNumbers: when a decision, or anything of the state at the end, differs in any bit.
    """
    try:
        table = pq.read_table(io.BytesIO(record))
        about = json.loads((table.schema.metadata or {})[_KEY])
        if about["format"] != _FORMAT:
            raise RecordError(
                f"The record has format {about['format']}; this Kindred reads {_FORMAT}."
            )
        calibration = np.array(about["calibration"], np.float64)
        replay = Replay(settings_from_json(json.dumps(about["settings"])), calibration)
        for batch in table.select(_SCHEMA.names).to_batches(5_000):
            for event in batch.to_pylist():
                replay.repeat(event, exact=True)
    except OtherDecision as error:
        raise OtherNumbers(f"{error} {_where(about)}") from error
    except RecordError:
        raise
    except (pa.ArrowException, KeyError, ValueError, TypeError, OSError) as error:
        raise RecordError(
            f"This is no record of a watched stream, or a damaged one: {error}"
        ) from error
    if state_digest(replay.monitor) != about["state"]:
        raise OtherNumbers(
            "All decisions are the same, but the state at the end differs in some bit. "
            f"{WHY_OTHER} {_where(about)}"
        )
    return replay.monitor


def _where(about: dict[str, Any]) -> str:
    """Where a record was made, and where it is replayed."""
    made_on = about.get("made_on")
    there = _words(made_on) if isinstance(made_on, dict) else "a machine that it does not name"
    return f"The record was made on {there}; this is {_words(_machine())}."


def _words(machine: dict[str, str]) -> str:
    parts = ("machine", "processor", "extensions")
    names = dict.fromkeys(str(machine.get(part) or "") for part in parts)
    return f"{' '.join(filter(None, names))} with NumPy {machine.get('numpy')}"
