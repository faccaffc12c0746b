"""The log of one stream: what came and what was answered, in order; and what goes with it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, literal, select

from app.database import some_at_once
from app.inbox_contents import storable
from app.watch_contents import Arrival, Question, RefusedFile
from app.watch_tables import EVENTS, PICTURES, SNAPSHOTS
from ood.monitoring.monitor import Decided

DECISION = ("item", "threshold", "flagged", "asked", "probability")
_ROWS_AT_ONCE = 5_000

Event = Row[Any]


class EventKind(StrEnum):
    """What happened."""

    ARRIVAL = "arrival"
    ANSWER = "answer"
    REFUSED = "refused"


@dataclass(frozen=True)
class Log:
    """One stream's, within one transaction.

    Attributes:
        connection: of the transaction.
        stream: its number.
    """

    connection: Connection
    stream: int

    def events(self, after: int = 0) -> Iterator[Event]:
        """Those with larger numbers, in order."""
        query = select(EVENTS).where(EVENTS.c.stream_id == self.stream, EVENTS.c.id > after)
        query = query.order_by(EVENTS.c.id).execution_options(yield_per=_ROWS_AT_ONCE)
        yield from self.connection.execute(query)

    def append(self, rows: Sequence[Mapping[str, object]]) -> int:
        """Add events, in order; returns the number of the last one.

        Args:
            rows: by the columns of the table; at least one.
        """
        filled = [self._blank | dict(row) | {"stream_id": self.stream} for row in rows]
        self.connection.execute(insert(EVENTS), filled)
        query = select(EVENTS.c.id).where(EVENTS.c.stream_id == self.stream)
        last = self.connection.scalar(query.order_by(EVENTS.c.id.desc()).limit(1))
        assert last is not None  # one was just added
        return last

    @property
    def _blank(self) -> dict[str, object]:
        return {column.name: None for column in EVENTS.c if column.name != "id"}

    def taken(self, sources: Sequence[str]) -> dict[str, int]:
        """Which sources came before, and as which item; 0 where they were refused."""
        by_digest = {source_digest(source): source for source in sources if source}
        columns = EVENTS.c.source, EVENTS.c.item
        query = select(*columns).where(EVENTS.c.stream_id == self.stream)
        return {
            by_digest[row.source]: row.item or 0
            for some in some_at_once(list(by_digest))
            for row in self.connection.execute(query.where(EVENTS.c.source.in_(some)))
        }

    def questions(self, settled: int, limit: int) -> list[Question]:
        """What was asked after so many settled items and has no answer, oldest first."""
        answered = EVENTS.alias("answered")
        columns = ("item", "name", "sha256", "score", "p_value", "predicted", "flagged")
        query = (
            select(*(EVENTS.c[name] for name in columns), PICTURES.c.webp)
            .outerjoin(
                PICTURES,
                (PICTURES.c.stream_id == EVENTS.c.stream_id)
                & (PICTURES.c.sha256 == EVENTS.c.sha256),
            )
            .where(
                EVENTS.c.stream_id == self.stream,
                EVENTS.c.kind == EventKind.ARRIVAL,
                EVENTS.c.item > settled,
                EVENTS.c.asked,
                ~select(literal(1))
                .where(
                    answered.c.stream_id == EVENTS.c.stream_id,
                    answered.c.kind == EventKind.ANSWER,
                    answered.c.item == EVENTS.c.item,
                )
                .exists(),
            )
            .order_by(EVENTS.c.item)
            .limit(limit)
        )
        return [
            Question(**{name: row._mapping[name] for name in columns}, picture=row.webp or b"")
            for row in self.connection.execute(query)
        ]

    def refused(self, limit: int) -> list[RefusedFile]:
        """The last so many refused files, newest first."""
        where = (EVENTS.c.stream_id == self.stream) & (EVENTS.c.kind == EventKind.REFUSED)
        query = select(EVENTS).where(where).order_by(EVENTS.c.id.desc()).limit(limit)
        return [
            RefusedFile(row.name, row.reason, row.source or "")
            for row in self.connection.execute(query)
        ]

    def add_pictures(self, pictures: Mapping[str, bytes]) -> None:
        """Store plain pictures by sha256, but those that are there."""
        here = select(PICTURES.c.sha256).where(PICTURES.c.stream_id == self.stream)
        there = {
            sha256
            for some in some_at_once(list(pictures))
            for sha256 in self.connection.scalars(here.where(PICTURES.c.sha256.in_(some)))
        }
        rows = [
            {"stream_id": self.stream, "sha256": sha256, "webp": webp}
            for sha256, webp in pictures.items()
            if sha256 not in there
        ]
        if rows:
            self.connection.execute(insert(PICTURES), rows)

    def snapshot(self) -> tuple[int, bytes] | None:
        """The number of an event, and the state after it; None where none was taken."""
        columns = SNAPSHOTS.c.event_id, SNAPSHOTS.c.state
        query = select(*columns).where(SNAPSHOTS.c.stream_id == self.stream)
        row = self.connection.execute(query).first()
        return None if row is None else (row.event_id, row.state)

    def save_snapshot(self, event: int, state: bytes) -> None:
        """Keep the state after an event, instead of the one before."""
        self.connection.execute(delete(SNAPSHOTS).where(SNAPSHOTS.c.stream_id == self.stream))
        row = {"stream_id": self.stream, "event_id": event, "state": state}
        self.connection.execute(insert(SNAPSHOTS).values(row))


def arrival_row(arrival: Arrival, decided: Decided, created: str) -> dict[str, object]:
    """Of the log, for an image and what was decided about it."""
    return {
        "kind": EventKind.ARRIVAL, "created": created, "name": storable(arrival.name),
        "source": source_digest(arrival.source), "sha256": arrival.sha256,
        "score": float(arrival.score), "p_value": float(arrival.p_value),
        "predicted": int(arrival.predicted),
    } | {name: getattr(decided, name) for name in DECISION}  # fmt: skip


def refused_row(refused: RefusedFile, created: str) -> dict[str, object]:
    """Of the log, for a file that no score can be given."""
    return {
        "kind": EventKind.REFUSED, "created": created, "name": storable(refused.name),
        "source": source_digest(refused.source), "reason": storable(refused.reason),
    }  # fmt: skip


def source_digest(source: str) -> str | None:
    """What a source is stored as, for paths may be long; None for none."""
    if not source:
        return None
    return hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()
