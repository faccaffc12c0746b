"""Watched streams on disk.

One database an installation. Every change is one transaction: it is there as a whole, or not at
all, wherever a process is killed.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import numpy as np
from sqlalchemy import URL, ColumnElement, Engine, delete, func, insert, select, update

from app.database import insert_row
from app.inbox_contents import storable
from app.locations import home
from app.watch_contents import StreamInfo, settings_from_json, settings_to_json
from app.watch_log import EventKind, Log
from app.watch_tables import DELIVERIES, EVENTS, LONGEST_NAME, STREAMS, WATCH
from ood.monitoring.settings import Settings

_ABANDONED_S = 120
_SCORE = np.dtype("<f8")


@dataclass(frozen=True)
class Stream:
    """What of a stream never changes.

    Attributes:
        number: by which it is found.
        name: unique in its workspace.
        workspace: see `app.inbox.identity`.
        settings: of its monitor.
        calibration: (n,) float64 scores of held-out known images.
    """

    number: int
    name: str
    workspace: str
    settings: Settings
    calibration: np.ndarray


@dataclass(frozen=True)
class WatchStore:
    """The streams of all workspaces; shared by threads, processes and users.

    All methods raise StoreError when the database cannot be read or written; what was there before
    is then as it was.

    Attributes:
        engine: of the database.
    """

    engine: Engine

    @classmethod
    def open(cls, url: str | None = None) -> Self:
        """Open a store; one that is not there is made.

        Args:
            url: as SQLAlchemy takes it; None for $KINDRED_WATCH, or watch.sqlite in the folder of
                workspaces.

        Raises:
            StoreError: when it cannot be reached or made, is damaged, or of another version.
        """
        default = URL.create("sqlite", database=str(home() / "watch.sqlite"))
        return cls(WATCH.open(url or os.environ.get("KINDRED_WATCH") or default))

    def create(
        self, workspace: str, name: str, settings: Settings, calibration: np.ndarray
    ) -> Stream:
        """Remember a new stream.

        Raises:
            ValueError: when the name is empty, too long or in use in this workspace.
        """
        name = storable(name).strip()
        if not 0 < len(name) <= LONGEST_NAME:
            raise ValueError(f"A stream needs a name, of at most {LONGEST_NAME} letters.")
        with WATCH.writing(self.engine) as connection:
            same = (STREAMS.c.workspace == workspace) & (STREAMS.c.name == name)
            if connection.scalar(select(STREAMS.c.id).where(same)) is not None:
                raise ValueError(f"There is a stream {name} already; give another name.")
            number = insert_row(
                connection, STREAMS, workspace=workspace, name=name, created=now(),
                settings=settings_to_json(settings),
                calibration=calibration.astype(_SCORE).tobytes(),
            )  # fmt: skip
        return Stream(number, name, workspace, settings, calibration.astype(np.float64))

    def stream(self, workspace: str, number: int) -> Stream:
        """A stream by its number.

        Raises:
            ValueError: when there is none of this number in this workspace.
        """
        where = (STREAMS.c.id == number) & (STREAMS.c.workspace == workspace)
        with WATCH.reading(self.engine) as connection:
            row = connection.execute(select(STREAMS).where(where)).first()
        if row is None:
            raise ValueError(f"There is no stream {number} in this workspace; was it deleted?")
        with WATCH.undamaged():
            calibration = np.frombuffer(row.calibration, _SCORE).astype(np.float64)
            settings = settings_from_json(row.settings)
        return Stream(row.id, row.name, workspace, settings, calibration)

    def streams(self, workspace: str) -> list[StreamInfo]:
        """Those of a workspace, oldest first."""
        items = (
            select(func.coalesce(func.max(EVENTS.c.item), 0))
            .where(EVENTS.c.stream_id == STREAMS.c.id, EVENTS.c.kind == EventKind.ARRIVAL)
            .scalar_subquery()
        )
        columns = STREAMS.c.id, STREAMS.c.name, STREAMS.c.created, STREAMS.c.settings
        query = select(*columns, items.label("items")).where(STREAMS.c.workspace == workspace)
        with WATCH.reading(self.engine) as connection:
            rows = connection.execute(query.order_by(STREAMS.c.id)).all()
        with WATCH.undamaged():
            return [
                StreamInfo(
                    row.id, row.name, row.created, settings_from_json(row.settings), row.items
                )
                for row in rows
            ]

    def delete(self, number: int) -> None:
        """Delete a stream with its log, pictures and alarms."""
        with WATCH.writing(self.engine) as connection:
            connection.execute(delete(STREAMS).where(STREAMS.c.id == number))

    @contextmanager
    def reading(self, stream: Stream) -> Iterator[Log]:
        """One state of a stream's log."""
        with WATCH.reading(self.engine) as connection:
            yield Log(connection, stream.number)

    @contextmanager
    def changing(self, stream: Stream) -> Iterator[Log]:
        """A stream's log for one change, while nobody else changes it."""
        with WATCH.writing(self.engine) as connection:
            if connection.scalar(select(STREAMS.c.id).where(STREAMS.c.id == stream.number)) is None:
                raise WATCH.error(f"The stream {stream.name} was deleted.")
            yield Log(connection, stream.number)

    def sent_alarms(self, stream: Stream, channel: str) -> set[int]:
        """Places of the alarms that went out through a channel."""
        query = select(DELIVERIES.c.alarm).where(
            _delivery(stream, channel), DELIVERIES.c.sent != ""
        )
        with WATCH.reading(self.engine) as connection:
            return set(connection.scalars(query))

    def claim_alarm(self, stream: Stream, channel: str, alarm: int) -> bool:
        """Whether the caller, and nobody else, is to send an alarm through a channel now.

        Whoever claimed it two minutes ago and did not say that it went out was killed.
        """
        where = _delivery(stream, channel) & (DELIVERIES.c.alarm == alarm)
        with WATCH.writing(self.engine) as connection:
            row = connection.execute(select(DELIVERIES).where(where)).first()
            if row is not None:
                if row.sent or row.claimed > time.time() - _ABANDONED_S:
                    return False
                connection.execute(delete(DELIVERIES).where(where))
            connection.execute(
                insert(DELIVERIES).values(
                    stream_id=stream.number, channel=_digest(channel), alarm=alarm,
                    claimed=time.time(), sent="",
                )
            )  # fmt: skip
        return True

    def settle_alarm(self, stream: Stream, channel: str, alarm: int, *, sent: bool) -> None:
        """Say of a claimed alarm that it went out, or that it is to be tried again."""
        where = _delivery(stream, channel) & (DELIVERIES.c.alarm == alarm)
        with WATCH.writing(self.engine) as connection:
            if sent:
                connection.execute(update(DELIVERIES).where(where).values(sent=now()))
            else:
                connection.execute(delete(DELIVERIES).where(where))


def now() -> str:
    """A moment in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _delivery(stream: Stream, channel: str) -> ColumnElement[bool]:
    return (DELIVERIES.c.stream_id == stream.number) & (DELIVERIES.c.channel == _digest(channel))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
