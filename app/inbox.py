"""Flagged images, collected until somebody says what they are.

One database an installation. Every change is one transaction: it is there as a whole, or not at
all, wherever a process is killed.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sqlalchemy import URL, Connection, Engine, Row, delete, func, insert, select, update

from app.database import insert_row, some_at_once
from app.inbox_contents import ITEM_COLUMNS, Counts, Flagged, NewClass, State, Stream, storable
from app.inbox_pictures import add_pictures, delete_unused_pictures, plain_picture
from app.inbox_tables import (
    INBOX,
    ITEMS,
    MEMBERS,
    NEW_CLASSES,
    PASSES,
    PICTURES,
    WORKSPACES,
    known,
    known_or_new,
)
from app.locations import home
from ood.learned_class import FEWEST

if TYPE_CHECKING:
    from app.workspace import Workspace

_LONGEST_NAME = 64


def identity(workspace: "Workspace") -> str:
    """What the inbox knows a workspace by: its name and the digest of all its files.

    Not its path, so that it may be moved. Another preparation of the same name is another one:
    its features, and its p-values, cannot be compared with those of before.
    """
    return f"{workspace.manifest.name} {workspace.key.rpartition(' ')[2]}"


@dataclass(frozen=True)
class Inbox:
    """The flagged images of all workspaces; shared by threads, processes and users.

    A workspace is known by its `identity`. All methods raise InboxError when the database cannot
    be read or written; what was there before is then as it was.

    Attributes:
        engine: of the database.
    """

    engine: Engine

    @classmethod
    def open(cls, url: str | None = None) -> Self:
        """Open an inbox; one that is not there is made.

        Args:
            url: as SQLAlchemy takes it; None for $KINDRED_INBOX, or inbox.sqlite in the folder of
                workspaces.

        Raises:
            InboxError: when it cannot be reached or made, is damaged, or of another version.
        """
        default = URL.create("sqlite", database=str(home() / "inbox.sqlite"))
        return cls(INBOX.open(url or os.environ.get("KINDRED_INBOX") or default))

    def add(
        self, workspace: str, pass_id: str, *, level: float, inspected: int, flagged: Flagged
    ) -> bool:
        """Put the flagged images of a pass behind those of earlier passes.

        Args:
            workspace: see `identity`.
            pass_id: names the pass; one that is there already is not added again.
            level: share of known images that is flagged.
            inspected: images in the pass, flagged or not; 0 for a pass that is added because of
                what it showed, whose images are then no evidence for a test over the stream.
            flagged: those that are kept; possibly none.

        Returns:
            Whether it was added.

        Raises:
            ValueError: when a position is not below `inspected`, or features or stages are not of
                the widths that the workspace has had so far.
            ImageRefused: when a picture cannot be decoded.
        """
        if inspected and len(flagged) and flagged.positions[-1] >= inspected:
            raise ValueError(
                f"Position {flagged.positions[-1]} in a pass of {inspected} images (from 0)."
            )
        pictures = dict(zip(flagged.sha256, map(plain_picture, flagged.pictures), strict=True))
        with INBOX.writing(self.engine) as connection:
            own = known_or_new(connection, workspace, *flagged.widths)
            same = (PASSES.c.workspace_id == own.id) & (PASSES.c.given_id == pass_id)
            if connection.scalar(select(PASSES.c.id).where(same)) is not None:
                return False
            number = insert_row(
                connection, PASSES, workspace_id=own.id, given_id=pass_id, created=_ago(),
                level=float(level), inspected=int(inspected),
            )  # fmt: skip
            if len(flagged):
                add_pictures(connection, pictures)
                rows = [{"pass_id": number} | row for row in flagged.rows()]
                connection.execute(insert(ITEMS), rows)
        return True

    def stream(self, workspace: str) -> Stream:
        """Everything of a workspace that is in the inbox, in order."""
        with INBOX.reading(self.engine) as connection:
            own = known(connection, workspace)
            here = PASSES.c.workspace_id == own.id
            passes = connection.execute(select(PASSES).where(here).order_by(PASSES.c.id)).all()
            # What others add between the two queries, where a database lets them, waits.
            before = PASSES.c.id <= max((row.id for row in passes), default=0)
            items = connection.execute(
                # Not joined: SQLite would read out of order and sort, which takes twice as long.
                select(*(ITEMS.c[name] for name in ITEM_COLUMNS))
                .where(ITEMS.c.pass_id.in_(select(PASSES.c.id).where(here, before)))
                .order_by(ITEMS.c.pass_id, ITEMS.c.position)
            ).all()
        with INBOX.undamaged():
            return Stream.of(passes, items, *own.widths)

    def pictures(self, ids: Sequence[int] | np.ndarray) -> dict[int, bytes]:
        """WebP files of items, by their ids; items deleted by now are not among them."""
        query = select(ITEMS.c.id, PICTURES.c.webp).join(PICTURES)
        with INBOX.reading(self.engine) as connection:
            return {
                row.id: row.webp
                for some in _parts(ids)
                for row in connection.execute(query.where(ITEMS.c.id.in_(some)))
            }

    def class_pictures(self, number: int) -> dict[str, bytes]:
        """WebP pictures that teach a class, by the digest of their pixels."""
        query = select(PICTURES).join(MEMBERS, MEMBERS.c.sha256 == PICTURES.c.sha256)
        with INBOX.reading(self.engine) as connection:
            rows = connection.execute(query.where(MEMBERS.c.class_id == number)).all()
        return {row.sha256: row.webp for row in rows}

    def dismiss(self, ids: Sequence[int] | np.ndarray) -> None:
        """Say of items that they are nothing new; they stay, marked."""
        self._mark(ids, State.DISMISSED)

    def restore(self, ids: Sequence[int] | np.ndarray) -> None:
        """Take back that items were dismissed."""
        self._mark(ids, State.NEW)

    def _mark(self, ids: Sequence[int] | np.ndarray, state: State) -> None:
        with INBOX.writing(self.engine) as connection:
            for some in _parts(ids):
                where = ITEMS.c.id.in_(some)
                connection.execute(update(ITEMS).where(where).values(state=state.value))

    def delete(self, ids: Sequence[int] | np.ndarray) -> None:
        """Delete items for good, and their pictures where nothing else uses them.

        A picture that teaches a class stays until the class is undone. Images that were inspected
        still count as inspected.
        """
        with INBOX.writing(self.engine) as connection:
            for some in _parts(ids):
                connection.execute(delete(ITEMS).where(ITEMS.c.id.in_(some)))
            delete_unused_pictures(connection)

    def delete_older(self, workspace: str, days: float) -> None:
        """Delete passes made longer ago, with their items; as if they had never been inspected.

        What a sequential test over the stream has promised holds from here anew.
        """
        with INBOX.writing(self.engine) as connection:
            here = PASSES.c.workspace_id == known(connection, workspace).id
            connection.execute(delete(PASSES).where(here, PASSES.c.created < _ago(days)))
            delete_unused_pictures(connection)

    def delete_workspace(self, workspace: str) -> None:
        """Delete all that belongs to a workspace: passes, items, classes, pictures."""
        with INBOX.writing(self.engine) as connection:
            connection.execute(delete(WORKSPACES).where(WORKSPACES.c.identity == workspace))
            delete_unused_pictures(connection)

    def save_class(self, workspace: str, name: str, ids: Sequence[int] | np.ndarray) -> int:
        """Remember a class by the items that teach it; returns its number.

        Images are added to a class in force of the same name, in capitals or not.

        Raises:
            ValueError: when the name is empty or too long, an image teaches another class already,
                or too few different ones are there.
        """
        name = storable(name).strip()
        if not 0 < len(name) <= _LONGEST_NAME:
            raise ValueError(f"A class needs a name, of at most {_LONGEST_NAME} letters.")
        with INBOX.writing(self.engine) as connection:
            own = known(connection, workspace)
            members = _members(connection, own.id, ids)
            taught = {row.sha256: row for row in _taught(connection, own.id)}
            others = {taught[m["sha256"]].name for m in members if m["sha256"] in taught} - {
                row.name for row in taught.values() if row.name.casefold() == name.casefold()
            }
            if others:
                raise ValueError(f"Some of these images teach {sorted(others)[0]} already.")
            same = next(
                (r.id for r in taught.values() if r.name.casefold() == name.casefold()), None
            )
            new = [row for row in members if row["sha256"] not in taught]
            if same is None and len(new) < FEWEST:
                raise ValueError(
                    f"Of these {len(ids)} images {len(new)} different ones are in the inbox now; "
                    f"a class needs {FEWEST}."
                )
            number = same or insert_row(
                connection, NEW_CLASSES, workspace_id=own.id, name=name, created=_ago(), undone=""
            )
            if new:
                connection.execute(insert(MEMBERS), [{"class_id": number} | row for row in new])
        return number

    def undo_class(self, number: int) -> None:
        """Take a class back; it is kept, with the date."""
        where = (NEW_CLASSES.c.id == number) & (NEW_CLASSES.c.undone == "")
        with INBOX.writing(self.engine) as connection:
            connection.execute(update(NEW_CLASSES).where(where).values(undone=_ago()))
            delete_unused_pictures(connection)

    def classes(self, workspace: str) -> tuple[NewClass, ...]:
        """The classes that were named, those taken back too, oldest first."""
        with INBOX.reading(self.engine) as connection:
            own = known(connection, workspace)
            here = NEW_CLASSES.c.workspace_id == own.id
            named = connection.execute(
                select(NEW_CLASSES).where(here).order_by(NEW_CLASSES.c.id)
            ).all()
            members = connection.execute(
                select(MEMBERS).join(NEW_CLASSES).where(here).order_by(MEMBERS.c.sha256)
            ).all()
        with INBOX.undamaged():
            return tuple(
                NewClass.of(row, [m for m in members if m.class_id == row.id], *own.widths)
                for row in named
            )

    def counts(self, workspace: str) -> Counts:
        """How much there is, without reading it."""
        with INBOX.reading(self.engine) as connection:
            here = PASSES.c.workspace_id == known(connection, workspace).id
            passes, inspected = connection.execute(
                select(func.count(), func.coalesce(func.sum(PASSES.c.inspected), 0)).where(here)
            ).one()
            flagged = select(func.count()).select_from(ITEMS).join(PASSES).where(here)
            dismissed = flagged.where(ITEMS.c.state == State.DISMISSED.value)
            return Counts(
                passes,
                inspected,
                connection.scalar(flagged) or 0,
                connection.scalar(dismissed) or 0,
            )


def _members(
    connection: Connection, workspace_id: int, ids: Sequence[int] | np.ndarray
) -> list[dict[str, Any]]:
    """One row for each picture among the items of a workspace."""
    columns = ITEMS.c.sha256, ITEMS.c.features, ITEMS.c.means
    query = select(*columns).join(PASSES).where(PASSES.c.workspace_id == workspace_id)
    found = {
        row.sha256: dict(row._mapping)
        for some in _parts(ids)
        for row in connection.execute(query.where(ITEMS.c.id.in_(some)))
    }
    return list(found.values())


def _taught(connection: Connection, workspace_id: int) -> list[Row[tuple[str, int, str]]]:
    """Pictures of the classes in force: sha256, and the class's id and name."""
    query = (
        select(MEMBERS.c.sha256, NEW_CLASSES.c.id, NEW_CLASSES.c.name)
        .join(NEW_CLASSES)
        .where(NEW_CLASSES.c.workspace_id == workspace_id, NEW_CLASSES.c.undone == "")
    )
    return list(connection.execute(query))


def _parts(ids: Sequence[int] | np.ndarray) -> Iterator[Sequence[int]]:
    return some_at_once(np.asarray(ids, np.int64).tolist())


def _ago(days: float = 0) -> str:
    """A moment in UTC, ISO 8601."""
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
